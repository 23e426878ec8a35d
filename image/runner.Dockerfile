# What jobs run in: Kubernetes pods, and `container:` of a job. Ubuntu LTS with the common tools, the forges' runners and the agent.
#
#   docker build -f image/runner.Dockerfile -t cml-runner:runner .
#   docker build -f image/runner.Dockerfile -t cml-runner:runner-gpu --build-arg BASE=nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 .
#
# A file of its own: builders without BuildKit make every stage of a file, and `uses: org/cml-runner@main` builds the other one.
ARG BASE=ubuntu:24.04
FROM ${BASE}
ARG ACTIONS_RUNNER=2.336.0
ARG GITLAB_RUNNER=19.4.0
ARG NODE=24.11.1
ARG HOOKS=0.8.1
ARG GITHUB_API=https://api.github.com
ARG GITLAB_RUNNER_DOWNLOADS=https://gitlab-runner-downloads.s3.amazonaws.com
ARG NODE_DIST=https://nodejs.org/dist
COPY image/runner.sh image/programs.py /tmp/image/
RUN sh /tmp/image/runner.sh
COPY runner_action/agent /var/lib/cml-runner/agent
WORKDIR /var/lib/cml-runner
# At the end, and both, as a pod has another home: what a job installs with pip for itself.
ENV LANG=C.UTF-8 PATH=$PATH:/home/runner/.local/bin:/var/lib/cml-runner/user/.local/bin
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/bin/python3", "-m", "agent", "run"]
