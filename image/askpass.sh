#!/bin/sh
# What Git asks for credentials (GIT_ASKPASS): they stand in the environment, in no argument list, no address and no .git/config.
case $1 in
Username*) printf '%s\n' "$GIT_USERNAME" ;;
*) printf '%s\n' "$GIT_PASSWORD" ;;
esac
