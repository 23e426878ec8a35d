# The jobs' image, for Kubernetes pods and for `container:` of a job: Ubuntu LTS with the common tools, the runner programs and the agent.
#
#   docker build -f image/runner.Dockerfile -t cml-runner:runner .
#   docker build -f image/runner.Dockerfile -t cml-runner:runner-gpu --build-arg BASE=\
#     nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04@sha256:ac55d124da4882b497f732d8dfd9a702d5447a5f29d08d56da6f64f0a1eb34bc .
#
# A separate file, because builders without BuildKit build every stage of a file, and `uses: <owner>/cml-runner@main` builds the other one.
ARG BASE=ubuntu:24.04@sha256:008173c23f95b170204355c12626cb5a965d779a7e1283b09e9cffbb1bf33ca3
FROM ${BASE}
ARG ACTIONS_RUNNER=2.336.0
ARG GITLAB_RUNNER=19.4.0
ARG NODE=24.11.1
ARG HOOKS=0.8.1
ARG GITHUB=https://github.com
ARG GITHUB_API=https://api.github.com
ARG GITLAB_RUNNER_DOWNLOADS=https://gitlab-runner-downloads.s3.amazonaws.com
ARG NODE_DIST=https://nodejs.org/dist
COPY image/runner.sh image/programs.py image/programs.sha256 /tmp/image/
RUN sh /tmp/image/runner.sh
COPY runner_action/agent /var/lib/cml-runner/agent
WORKDIR /var/lib/cml-runner
# For programs that a job installs with `pip install --user`. At the end of PATH, and both folders, because a pod has another home.
ENV LANG=C.UTF-8 PATH=$PATH:/home/runner/.local/bin:/var/lib/cml-runner/user/.local/bin
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/bin/python3", "-m", "agent", "run"]
