"""The variables that the SDKs read, by their own source, and what each of them is to a launch."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from sysconfig import get_path

from runner_action import inputs, secret_sources

LIBRARIES = Path(get_path("purelib"))
PACKAGES = (
    *("botocore", "boto3", "azure/identity", "azure/core", "azure/mgmt/core", "msal"),
    *("google/auth", "google/oauth2", "google/api_core", "google/cloud/compute_v1/services/zones"),
    *("kubernetes/config", "kubernetes/client", "requests", "urllib3", "github", "gitlab"),
)
UNUSED = re.compile(r"(^|/)(aio|__main__\.py|cli\.py|.*_test\.py|_async\w*)(/|$)")
"""Modules that no launch loads."""
_READS = re.compile("environ|getenv|[\"'](AWS|BOTO|AZURE|MSI|GOOGLE|CLOUDSDK|GCE|KUBE)_")
_OWN = re.compile(r"_?(AWS|BOTO\w*|AZURE|MSI|IMDS|GOOGLE|CLOUDSDK|GCE|KUBERNETES)_[A-Z0-9_]+")
_NAME = re.compile(r"_?[A-Z][A-Za-z0-9_]{4,}|https?_proxy|no_proxy")
_ENVIRONMENT = re.compile("_?environ|_?env|getenv")

USED: Mapping[str, tuple[str, ...]] = {
    "aws": (
        *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"),
        *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
        *("AWS_CA_BUNDLE", "AWS_DATA_PATH", "AWS_DEFAULTS_MODE", "AWS_MAX_ATTEMPTS"),
        *("AWS_RETRY_MODE", "AWS_CREDENTIAL_EXPIRATION", "AWS_ACCOUNT_ID"),
        *("AWS_ACCOUNT_ID_ENDPOINT_MODE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME"),
        *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        *("AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        *("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "AWS_EC2_METADATA_V1_DISABLED"),
        *("AWS_IMDS_USE_IPV6", "AWS_METADATA_SERVICE_TIMEOUT", "AWS_LOGIN_CACHE_DIRECTORY"),
        *("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "AWS_STS_REGIONAL_ENDPOINTS"),
        *("AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT", "AWS_AUTH_SCHEME_PREFERENCE"),
        *("AWS_SIGV4A_SIGNING_REGION_SET", "AWS_SDK_UA_APP_ID", "AWS_EXECUTION_ENV"),
        *("AWS_DISABLE_REQUEST_COMPRESSION", "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES"),
        *("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION"),
        *("AWS_ENDPOINT_DISCOVERY_ENABLED", "AWS_DISABLE_HOST_PREFIX_INJECTION"),
        *("AWS_CSM_CLIENT_ID", "AWS_CSM_ENABLED", "AWS_CSM_HOST", "AWS_CSM_PORT"),
        *("BOTO_DISABLE_CRT", "BOTOCORE_EXPERIMENTAL__PLUGINS", "BOTOCORE_TCP_KEEPALIVE"),
        *("BOTO_EXPERIMENTAL__ADD_PROXY_HOST_HEADER", "BOTO_EXPERIMENTAL__NO_EMPTY_CONTINUE"),
        *("AWS_LAMBDA_FUNCTION_NAME", "_X_AMZN_TRACE_ID"),
    ),
    "azure": (
        *("AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_USERNAME"),
        *("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN", "AZURE_IDENTITY_DISABLE_MULTITENANTAUTH"),
        *("AZURE_KUBERNETES_CA_DATA", "AZURE_KUBERNETES_CA_FILE", "AZURE_KUBERNETES_SNI_NAME"),
        *("AZURE_KUBERNETES_TOKEN_PROXY", "AZURE_POD_IDENTITY_AUTHORITY_HOST"),
        *("AZURE_REGIONAL_AUTHORITY_NAME", "AZURE_TOKEN_CREDENTIALS", "AZURE_HTTP_USER_AGENT"),
        *("AZURE_LOG_LEVEL", "AZURE_SDK_CLOUD_CONF", "AZURE_SDK_LOGGING_MULTIRECORD"),
        *("AZURE_SDK_TRACING_IMPLEMENTATION", "AZURE_TRACING_ENABLED", "IDENTITY_ENDPOINT"),
        *("IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT", "MSAL_FORCE_REGION"),
        *("REGION_NAME", "SYSTEM_OIDCREQUESTURI", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        "SSLKEYLOGFILE",
    ),
    "gcp": (
        *("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "GOOGLE_CLOUD_QUOTA_PROJECT"),
        *("CLOUDSDK_CONTEXT_AWARE_CERTIFICATE_CONFIG_FILE_PATH", "GOOGLE_API_USE_MTLS_ENDPOINT"),
        *("CLOUDSDK_CONTEXT_AWARE_USE_CLIENT_CERTIFICATE", "GOOGLE_API_CERTIFICATE_CONFIG"),
        *("GOOGLE_API_USE_CLIENT_CERTIFICATE", "GOOGLE_API_ENABLE_RUNTIME_BOUND_TOKEN"),
        "GOOGLE_API_PREVENT_AGENT_TOKEN_SHARING_FOR_GCP_SERVICES",
        *("GOOGLE_AUTH_TRUST_BOUNDARY_ENABLED", "GOOGLE_SDK_PYTHON_LOGGING_SCOPE"),
        *("GOOGLE_SDK_EXPERIMENTAL_PYTHON_TRACING_ENABLED", "APPENGINE_RUNTIME"),
        *("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "NO_GCE_CHECK"),
        *("GCE_METADATA_DETECT_RETRIES", "GCE_METADATA_HOST", "GCE_METADATA_IP"),
        *("GCE_METADATA_MTLS_MODE", "GCE_METADATA_ROOT", "GCE_METADATA_TIMEOUT"),
    ),
    "kubernetes": ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"),
}
"""No secrets, but what an SDK reads in a launch with this cloud. Each is tried with values that
nobody can use."""
HARMLESS: Mapping[str, tuple[str, ...]] = {
    "a setting of S3": (
        *("AWS_S3_DISABLE_EXPRESS_SESSION_AUTH", "AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS"),
        *("AWS_S3_USE_ARN_REGION", "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT"),
    ),
    "the name of a constant, not of a variable": (
        *("AZURE_CHINA_CLOUD", "AZURE_GERMANY", "AZURE_PUBLIC_CLOUD", "AZURE_US_GOVERNMENT"),
    ),
    "set for a program that the SDK starts": (
        *("GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE", "GOOGLE_EXTERNAL_ACCOUNT_ID"),
        *("GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL", "GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE"),
        *("GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE", "GOOGLE_EXTERNAL_ACCOUNT_REVOKE"),
        *("GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE", "KUBERNETES_EXEC_INFO"),
    ),
    "only on Windows": ("APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "SYSTEMROOT", "SystemDrive"),
    "only with a person at a screen": (
        *("AZUREPS_HOST_ENVIRONMENT", "BROWSER", "GOOGLE_AUTH_WEBAUTHN_PLUGIN"),
    ),
    "only over gRPC, which Compute Engine's client does not use": (
        "GOOGLE_CLOUD_ENABLE_DIRECT_PATH_XDS_OVER_INTERCONNECT",
    ),
    "an address of the job, whose own reader checks it": ("CI_SERVER_URL",),
}
VALUES = ("garbage", "-1", "http://[", "/nowhere/file", "FOLDER", "BROKEN", "BINARY")
"""What nobody can use: the words stand for paths."""


@cache
def read_by_sdks() -> dict[str, str]:
    """Each variable, and the first module that reads it."""
    found: dict[str, str] = {}
    trees = dict(_modules())
    constants: defaultdict[str, set[str]] = defaultdict(set)
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    constants[_name(target)] |= set(_texts(node.value))
    for module, tree in trees.items():
        for key in _keys(tree):
            for name in (*_texts(key), *constants.get(_name(key), ())):
                if _NAME.fullmatch(name):
                    found.setdefault(name, module)
    return found


def unknown() -> dict[str, str]:
    """Those of which nothing here says what they are."""
    properties = inputs.schema()["properties"].values()
    known = {
        *secret_sources.VARIABLES,
        *(name.partition("/")[0] for name in secret_sources.FILES),
        *(name for prop in properties for name in prop.get("x-env", ())),
        *(name for names in (*USED.values(), *HARMLESS.values()) for name in names),
    }
    return {
        name: module
        for name, module in read_by_sdks().items()
        if name not in known and not secret_sources.is_of_secrets(name)
    }


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for file in sorted((LIBRARIES / package).rglob("*.py")):
            module = str(file.relative_to(LIBRARIES))
            if not UNUSED.search(module) and _READS.search(text := file.read_text("utf-8-sig")):
                yield module, ast.parse(text)


def _keys(tree: ast.Module) -> Iterator[ast.AST]:
    """By which the environment is read; and all constants that can be nothing else."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=read, slice=key) if _is_environment(read):
                yield key
            case ast.Call(func=ast.Attribute(value=read), args=[key, *_]) if _is_environment(read):
                yield key
            case ast.Call(func=called, args=[key, *_]) if _name(called) == "getenv":
                yield key
            case ast.Compare(left=key, comparators=[read]) if _is_environment(read):
                yield key
            case ast.Constant(value=str(text)) if _OWN.fullmatch(text):
                yield node


def _is_environment(node: ast.AST) -> bool:
    return bool(_ENVIRONMENT.fullmatch(_name(node)))


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _texts(node: ast.AST) -> Iterator[str]:
    """The text, or the texts of a list."""
    if isinstance(node, ast.List | ast.Tuple):
        for element in node.elts:
            yield from _texts(element)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
