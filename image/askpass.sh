#!/bin/sh
# The program that Git calls for credentials (GIT_ASKPASS). They are in the environment, not in an argument list, an address or .git/config.
case $1 in
Username*) printf '%s\n' "$GIT_USERNAME" ;;
*) printf '%s\n' "$GIT_PASSWORD" ;;
esac
