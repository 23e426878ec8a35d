"""The list of clouds. An SDK is loaded only when its cloud is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import assert_never

from runner_action.loading import ALONE
from runner_action.model import ForgeName, ProviderName, Repository
from runner_action.providers.base import Provider
from runner_action.request import CloudRequest
from runner_action.waiting import Clock


def policy_for(
    request: CloudRequest, forge: ForgeName, repository: Repository | None = None
) -> str:
    """What the request's cloud has to allow, as a document in its own words. `forge`: whose jobs
    may themselves need rights; `repository`: whose machines may be ended, where the cloud can
    tell them from others'."""
    match request.provider:
        case ProviderName.AWS:
            from runner_action.providers.aws import policy as aws

            return aws.text(request, repository)
        case ProviderName.AZURE:
            from runner_action.providers.azure import policy as azure

            return azure.text(request)
        case ProviderName.GCP:
            from runner_action.providers.gcp import policy as gcp

            return gcp.text(request)
        case ProviderName.KUBERNETES:
            from runner_action.providers.kubernetes import policy as kubernetes

            return kubernetes.text(request, forge)
        case _ as unknown:
            assert_never(unknown)


def provider_for(
    request: CloudRequest,
    environ: Mapping[str, str],
    id_token: Callable[[str], str] | None,
    clock: Clock,
) -> Provider:
    """The request's provider, with the credentials of the request, or those that its SDK finds.
    `id_token`: gives the CI job's own for an audience."""
    match request.provider:
        case ProviderName.AWS:
            with ALONE:
                from runner_action.providers.aws.client import AwsProvider

            return AwsProvider.from_environment(clock)
        case ProviderName.AZURE:
            with ALONE:
                from runner_action.providers.azure.arm import Arm
                from runner_action.providers.azure.client import AzureProvider

            account = request.azure.account
            return AzureProvider(Arm.from_environment(account, environ, id_token, clock), clock)
        case ProviderName.GCP:
            with ALONE:
                from runner_action.providers.gcp.client import GcpProvider
                from runner_action.providers.gcp.compute import Compute

            return GcpProvider(Compute.from_environment(request.gcp, environ), clock)
        case ProviderName.KUBERNETES:
            with ALONE:
                from runner_action.providers.kubernetes.client import KubernetesProvider
                from runner_action.providers.kubernetes.cluster import Cluster

            cluster = Cluster.from_environment(request.kubernetes, environ)
            return KubernetesProvider(cluster, clock)
        case _ as unknown:
            assert_never(unknown)
