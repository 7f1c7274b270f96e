//! Why a container is not created.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use crate::{deliver::DeliverError, demand::DemandError, pods::FindError, stub::Refused, substitute};

/// The same as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Reason {
    /// A placeholder stands in the command line.
    Arguments,
    /// The API server does not confirm who the pod is.
    Identity,
    /// The backend or the ledger failed or refused.
    Fetch,
    /// There was no credential in time.
    Deadline,
    /// The pod has placeholders for which its annotations ask nothing.
    EmptyMapping,
    /// A placeholder would stay.
    Residual,
}

impl Reason {
    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Identity => "identity",
            Self::Fetch => "fetch_error",
            Self::Deadline => "deadline",
            Self::EmptyMapping => "empty_mapping",
            Self::Residual => "residual_placeholder",
        }
    }
}

/// With what it takes to mend it; the text reaches the pod's events.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error(
        "word {} of the container's command line has a placeholder, which only an environment variable can be rid of: read the \
         variable in the application, or through a shell as \"$NAME\", instead of $(NAME)",
        .0 + 1
    )]
    Arguments(usize),
    #[error("{0}")]
    Identity(#[from] FindError),
    #[error("{0}")]
    Demand(#[from] DemandError),
    #[error(
        "the container has a placeholder, and the pod's annotations ask for no credential in its place: create the pod anew, so that the \
         webhook sees it"
    )]
    NoDemand,
    #[error("{0}")]
    Deliver(#[from] Arc<DeliverError>),
    #[error(
        "no credential within {0:?} (nri.fetchTimeout): the secrets backend or the database is slow; it is still being fetched, and the \
         next attempt finds it"
    )]
    Deadline(Duration),
    #[error("{0}")]
    Substitute(#[from] substitute::Refusal),
    #[error("{0}")]
    Unsettable(Refused),
}

impl Refusal {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Arguments(_) => Reason::Arguments,
            Self::Identity(_) => Reason::Identity,
            Self::Demand(_) | Self::NoDemand => Reason::EmptyMapping,
            Self::Deliver(_) => Reason::Fetch,
            Self::Deadline(_) => Reason::Deadline,
            Self::Substitute(_) | Self::Unsettable(_) => Reason::Residual,
        }
    }
}
