//! What AWS refuses, with what to do about it.

use anyhow::{Result, anyhow};
use aws_sdk_ec2::error::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// A call that may have failed.
pub(super) trait Explain<T> {
    /// An error says `what` was being done, by which `call` (as policies name it, such as `ec2:CreateVolume`), why
    /// that failed and what to do.
    fn doing(self, call: &str, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E, R> Explain<T> for Result<T, SdkError<E, R>>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    fn doing(self, call: &str, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let (why, remedy) = explain(call, &error);
            anyhow!("{} ({call}): {why}; {remedy}", what())
        })
    }
}

/// The code of AWS's answer, such as `InvalidSnapshot.NotFound`.
pub(super) fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// Whether what the call is about is not there, or not there yet: what has just been made takes a while to be known
/// everywhere.
pub(super) fn is_not_found<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    code(error).is_some_and(|code| {
        let ends = ["NotFound", "NotFoundException", ".Unknown", "NoSuchKey", "NoSuchHostedZone"];
        ends.iter().any(|end| code.ends_with(end))
    })
}

/// Whether AWS asks for fewer calls.
pub(super) fn is_throttle<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    code(error).is_some_and(|code| THROTTLES.contains(&code))
}

/// The codes by which the services ask for fewer calls.
const THROTTLES: [&str; 6] = [
    "RequestLimitExceeded",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

fn explain<E, R>(call: &str, error: &SdkError<E, R>) -> (String, String)
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let Some(refusal) = error.as_service_error() else {
        let why = chain(error);
        // aws-config's chain ends with these words.
        let remedy = if why.contains("redential") {
            "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the instance a role"
        } else {
            "check the network, the region's name and AWS_ENDPOINT_URL, and run again"
        };
        return (why, remedy.to_owned());
    };
    let code = refusal.code().unwrap_or("no code");
    let why = format!("{code}: {}", refusal.message().unwrap_or("AWS gave no message"));
    (why, remedy(call, code))
}

/// An error with all that it rests on, in words.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    let mut words: Vec<_> = all.map(ToString::to_string).collect();
    // Some of the SDK's errors say the same as what they rest on.
    words.dedup();
    words.join(": ")
}

/// What to do about a code. Sources: "Error codes for the Amazon EC2 API" and "Common errors" of the other services.
fn remedy(call: &str, code: &str) -> String {
    match code {
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
            format!("allow the action {call} in the policy of the role or user")
        }
        "AuthFailure" | "InvalidClientTokenId" | "SignatureDoesNotMatch" | "UnrecognizedClientException" => {
            "these credentials are not valid in this region: check AWS_PROFILE and AWS_REGION".to_owned()
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
            "the credentials have expired: get new ones, and run again".to_owned()
        }
        "NoSuchBucket" => "create the bucket, or name another".to_owned(),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            "the bucket is in another region: set AWS_REGION to that".to_owned()
        }
        "InvalidAMIName.Duplicate" => {
            "choose another ami_name (it may hold {{timestamp}}), or set force_deregister to true".to_owned()
        }
        _ if THROTTLES.contains(&code) => {
            "AWS asks for fewer calls, and still did after all retries: run again later".to_owned()
        }
        _ if code.contains("LimitExceeded") || code.contains("QuotaExceeded") || code.starts_with("TooMany") => {
            "have the quota raised, or remove what is not needed any more (`imager gc`, `deployer gc`)".to_owned()
        }
        _ => "mend that and run again".to_owned(),
    }
}
