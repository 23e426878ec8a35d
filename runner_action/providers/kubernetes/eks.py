"""A token for EKS, as `aws eks get-token` makes it: the signed address of a call of STS by which
the cluster asks who signed it.

https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3

from runner_action.model import Secret
from runner_action.providers.aws.errors import translated
from runner_action.providers.kubernetes.programs import Asked
from runner_action.providers.kubernetes.tokens import Around, Token

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

PREFIX = "k8s-aws-v1."
HEADER = "x-k8s-aws-id"
"""Names the cluster, and is signed: another cluster cannot use the token."""
PRESIGNED_SECONDS = 60
"""Ignored by STS, but checked by older clusters.
https://github.com/kubernetes-sigs/aws-iam-authenticator: pkg/token/token.go"""
VALID = timedelta(minutes=14)
"""STS accepts the address for 15 minutes.
https://github.com/aws/aws-cli: awscli/customizations/eks/get_token.py"""
SESSION = "EKSGetTokenAuth"
"""How the AWS CLI calls its session with `--role-arn`."""


def token(asked: Asked, around: Around) -> Token:
    """Raises CredentialsError if there are no credentials of AWS, or the role may not be
    assumed."""
    region = (
        asked.values.get("region")
        or asked.variables.get("AWS_REGION")
        or asked.variables.get("AWS_DEFAULT_REGION")
    )
    profile = asked.values.get("profile") or asked.variables.get("AWS_PROFILE")
    cluster = asked.values["cluster"]
    with translated(f"signing in to the EKS cluster {cluster}"):
        session = boto3.Session(profile_name=profile, region_name=region)
        began = around.clock.now()
        address = _address(_sts(session, asked), cluster)
    encoded = base64.urlsafe_b64encode(address.encode()).decode().rstrip("=")
    return Token(Secret(f"{PREFIX}{encoded}"), began + VALID)


def _sts(session: boto3.Session, asked: Asked) -> STSClient:
    """A client of the session's own account, or of the role."""
    sts = session.client("sts")
    role = asked.values.get("role")
    if not role:
        return sts
    external = asked.values.get("external")
    more: Any = {"ExternalId": external} if external else {}
    name = asked.values.get("session") or SESSION
    found = sts.assume_role(RoleArn=role, RoleSessionName=name, **more)["Credentials"]
    return session.client(
        "sts",
        aws_access_key_id=found["AccessKeyId"],
        aws_secret_access_key=found["SecretAccessKey"],
        aws_session_token=found["SessionToken"],
    )


def _address(sts: STSClient, cluster: str) -> str:
    def named(request: Any, **_: Any) -> None:
        request.headers[HEADER] = cluster

    sts.meta.events.register("before-sign.sts.GetCallerIdentity", named)
    return sts.generate_presigned_url(
        "get_caller_identity", ExpiresIn=PRESIGNED_SECONDS, HttpMethod="GET"
    )
