"""The list of clouds: each question that every cloud answers in a way of its own. An SDK is
loaded only when its cloud is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, assert_never

from runner_action import guarding
from runner_action.errors import CredentialsError
from runner_action.loading import ALONE
from runner_action.model import ForgeName, ProviderName, Repository
from runner_action.providers.aws import facts as aws_facts
from runner_action.providers.aws import options as aws_options
from runner_action.providers.azure import facts as azure_facts
from runner_action.providers.azure import options as azure_options
from runner_action.providers.base import Provider
from runner_action.providers.gcp import facts as gcp_facts
from runner_action.providers.gcp import options as gcp_options
from runner_action.providers.kubernetes import facts as kubernetes_facts
from runner_action.providers.kubernetes import options as kubernetes_options
from runner_action.providers.traits import Traits
from runner_action.request import CloudOptions, CloudRequest
from runner_action.waiting import Clock


def traits_of(provider: ProviderName) -> Traits:
    match provider:
        case ProviderName.AWS:
            return aws_facts.TRAITS
        case ProviderName.AZURE:
            return azure_facts.TRAITS
        case ProviderName.GCP:
            return gcp_facts.TRAITS
        case ProviderName.KUBERNETES:
            return kubernetes_facts.TRAITS
        case _ as unknown:
            assert_never(unknown)


METADATA_HOSTS = tuple(
    dict.fromkeys(host for name in ProviderName for host in traits_of(name).metadata_hosts)
)
"""Of all clouds."""


def options_for(provider: ProviderName, value: Mapping[str, Any]) -> CloudOptions:
    """What the checked inputs ask of this cloud alone."""
    match provider:
        case ProviderName.AWS:
            return aws_options.from_inputs(value)
        case ProviderName.AZURE:
            return azure_options.from_inputs(value)
        case ProviderName.GCP:
            return gcp_options.from_inputs(value)
        case ProviderName.KUBERNETES:
            return kubernetes_options.from_inputs(value)
        case _ as unknown:
            assert_never(unknown)


def policy_for(
    request: CloudRequest, forge: ForgeName, repository: Repository | None = None
) -> str:
    """The permissions that the request needs, as a document in the cloud's own format. `forge`:
    whose jobs may need permissions themselves; `repository`: whose machines may be deleted, where
    the cloud can tell them from others."""
    match request.provider:
        case ProviderName.AWS:
            from runner_action.providers.aws import policy as aws_policy

            return aws_policy.text(request, repository)
        case ProviderName.AZURE:
            from runner_action.providers.azure import policy as azure_policy

            return azure_policy.text(request)
        case ProviderName.GCP:
            from runner_action.providers.gcp import policy as gcp_policy

            return gcp_policy.text(request)
        case ProviderName.KUBERNETES:
            from runner_action.providers.kubernetes import policy as kubernetes_policy

            return kubernetes_policy.text(request, forge)
        case _ as unknown:
            assert_never(unknown)


def configured(provider: ProviderName, environ: Mapping[str, str]) -> AbstractContextManager[None]:
    """Around whatever an SDK does."""
    traits = traits_of(provider)
    return guarding.configured(traits.title, traits.variables, environ, CredentialsError)


def provider_for(
    request: CloudRequest,
    environ: Mapping[str, str],
    id_token: Callable[[str], str] | None,
    clock: Clock,
) -> Provider:
    """The request's provider, with the credentials of the request, or those that its SDK finds.
    `id_token`: returns the CI job's own for an audience."""
    guard = partial(configured, request.provider, environ)
    with guard():
        return guarding.guarded(_provider_for(request, environ, id_token, clock), guard)


def _provider_for(
    request: CloudRequest,
    environ: Mapping[str, str],
    id_token: Callable[[str], str] | None,
    clock: Clock,
) -> Provider:
    match request.provider:
        case ProviderName.AWS:
            with ALONE:
                from runner_action.providers.aws.client import AwsProvider

            return AwsProvider.from_environment(clock)
        case ProviderName.AZURE:
            with ALONE:
                from runner_action.providers.azure.arm import Arm
                from runner_action.providers.azure.client import AzureProvider

            account = azure_options.options_of(request).account
            arm = Arm.from_environment(account, environ, id_token, clock)
            return AzureProvider(arm, clock)
        case ProviderName.GCP:
            with ALONE:
                from runner_action.providers.gcp.client import GcpProvider
                from runner_action.providers.gcp.compute import Compute

            options = gcp_options.options_of(request)
            return GcpProvider(Compute.from_environment(options, environ), clock)
        case ProviderName.KUBERNETES:
            with ALONE:
                from runner_action.providers.kubernetes.client import KubernetesProvider
                from runner_action.providers.kubernetes.cluster import Cluster
                from runner_action.providers.kubernetes.tokens import Around

            options_of_cluster = kubernetes_options.options_of(request)
            around = Around(environ, id_token, clock)
            cluster = Cluster.from_environment(options_of_cluster, environ, around)
            return KubernetesProvider(cluster, clock)
        case _ as unknown:
            assert_never(unknown)
