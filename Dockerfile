# What `uses: <owner>/cml-runner@v1`, the GitLab component and `docker run` start.
#
#   docker build -t cml-runner .
#
# What jobs run in is another image: image/runner.Dockerfile.
#
# The final image is made from nothing: only what image/assemble.py has chosen is in it. It starts as root, because GitHub hands an action files
# that only root can write, and works as any other user (`docker run --user 65532`).
ARG DEBIAN=debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f

FROM ${DEBIAN} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends busybox-static ca-certificates python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements/launcher.txt .
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes --no-compile --only-binary :all: --target site -r launcher.txt
COPY runner_action site/runner_action
COPY schema/inputs.schema.json site/runner_action/
COPY image image
RUN python3 image/assemble.py site /image

FROM scratch AS launcher
COPY --from=build /image /
# Where the release is that this image is of; none for one that is built from source.
ARG RELEASE=
ENV PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 CML_RUNNER_RELEASE=${RELEASE}
ENTRYPOINT ["/usr/local/bin/cml-runner"]
