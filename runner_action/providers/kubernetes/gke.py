"""A token for GKE: an access token of Google Cloud, which a cluster accepts as it is.

https://cloud.google.com/kubernetes-engine/docs/how-to/api-server-authentication
"""

from __future__ import annotations

from runner_action.model import Secret
from runner_action.providers.gcp.credentials import EMAIL_SCOPE, SCOPE, access_token
from runner_action.providers.gcp.options import GcpOptions
from runner_action.providers.kubernetes.programs import Asked
from runner_action.providers.kubernetes.tokens import Around, Token

FILE, TEXT = "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS_DATA"
SCOPES = (SCOPE, EMAIL_SCOPE)
"""Those of `gke-gcloud-auth-plugin`: without the second, a cluster knows a service account by its
number, which no binding to its email fits.
https://github.com/kubernetes/cloud-provider-gcp/blob/master/cmd/gke-gcloud-auth-plugin/default_credentials_token_provider.go"""


def token(asked: Asked, around: Around) -> Token:
    """Raises CredentialsError if there are no credentials of Google Cloud, or none that it
    accepts."""
    text = around.environ.get(TEXT)
    options = GcpOptions(credentials=Secret(text) if text else None)
    file = asked.variables.get(FILE) or around.environ.get(FILE)
    value, ends = access_token(options, file, asked.values.get("account"), SCOPES)
    return Token(Secret(value), ends)
