"""Google Cloud, as far as the rest of the launcher must know it. Pure."""

from __future__ import annotations

from runner_action.providers.traits import Traits

TRAITS = Traits(
    title="Google Cloud",
    variables=("GOOGLE_", "CLOUDSDK_", "GCE_"),
    # https://cloud.google.com/compute/docs/metadata/querying-metadata
    metadata_hosts=("metadata.google.internal", "169.254.169.254"),
    # https://google-auth.readthedocs.io/en/latest/reference/google.auth.environment_vars.html
    secret_variables=("GOOGLE_APPLICATION_CREDENTIALS",),
    secret_files={
        "GOOGLE_APPLICATION_CREDENTIALS": "",
        "CLOUDSDK_CONFIG/application_default_credentials.json": "~/.config/gcloud",
    },
)
