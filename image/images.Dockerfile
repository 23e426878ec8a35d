# Every image of others that is a base, a build tool or started, by digest. This file is never built: it is for Dependabot, which reads only
# `FROM` (https://github.com/dependabot/dependabot-core/issues/2057). tests/test_supply.py compares it with the files that it names.
#
# Each digest is of the index, and so of all architectures: `docker buildx imagetools inspect NAME`.

# Dockerfile
FROM debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f
# image/runner.Dockerfile
FROM ubuntu:24.04@sha256:008173c23f95b170204355c12626cb5a965d779a7e1283b09e9cffbb1bf33ca3
# image/runner.Dockerfile
FROM nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04@sha256:ac55d124da4882b497f732d8dfd9a702d5447a5f29d08d56da6f64f0a1eb34bc
# runner_action/providers/kubernetes/table.py
FROM docker:28-dind@sha256:2a232a42256f70d78e3cc5d2b5d6b3276710a0de0596c145f627ecfae90282ac
# .github/workflows/image.yml
FROM tonistiigi/binfmt:qemu-v10.2.3-68@sha256:400a4873b838d1b89194d982c45e5fb3cda4593fbfd7e08a02e76b03b21166f0
# .github/workflows/image.yml
FROM moby/buildkit:buildx-stable-1@sha256:28a898719c18a33f4e8000685287fa36fd0dd9560c6440227d3a732d79bb41d8
# .github/workflows/image.yml
FROM docker/buildkit-syft-scanner:stable-1@sha256:ae4f3b554449e7e25548e7d8ccc029d17357348e30c6e3df01b92bc93654d6a9
# gitlab-component/.gitlab-ci.yml
FROM curlimages/curl:8.21.0@sha256:7c12af72ceb38b7432ab85e1a265cff6ae58e06f95539d539b654f2cfa64bb13
# gitlab-component/.gitlab-ci.yml
FROM registry.gitlab.com/gitlab-org/cli:v1.107.0@sha256:ea9708890660b1f766d8185ccbc99b8729633bfa34ea9fda35f6ef1fdf90e507
