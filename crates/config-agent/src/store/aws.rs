//! Who asks AWS, and where: credentials, the region, and signatures of version 4.
//!
//! The one kind of request that is signed here is a POST to `/` without a query, so the whole of the algorithm is a
//! screen long; the SDK's own signer would bring forty crates into every image.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::ANSWER;
use crate::imds::Imds;
use crate::settings::{SsmSettings, secret};

/// How long before their end new ones are asked for.
const BEFORE_END: SignedDuration = SignedDuration::from_mins(5);

/// What requests are signed with.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Credentials {
    #[serde(rename = "AccessKeyId")]
    id: String,
    #[serde(rename = "SecretAccessKey")]
    key: String,
    token: Option<String>,
    #[serde(rename = "Expiration")]
    end: Option<Timestamp>,
}

impl Credentials {
    /// From the file that the settings name, from the environment, or of the instance's role.
    pub async fn find(settings: &SsmSettings) -> Result<Self> {
        if let Some(path) = &settings.credentials_file {
            return of_file(path);
        }
        if let (Ok(id), Ok(key)) = (env::var("AWS_ACCESS_KEY_ID"), env::var("AWS_SECRET_ACCESS_KEY")) {
            return Ok(Self { id, key, token: env::var("AWS_SESSION_TOKEN").ok(), end: None });
        }
        of_role(&settings.imds).await.context("asking for the credentials of the instance's role")
    }

    /// Whether they are good for a few minutes at most.
    pub fn expire_soon(&self) -> bool {
        self.end.is_some_and(|end| Timestamp::now() + BEFORE_END > end)
    }
}

/// The region that this machine is in.
pub async fn region(imds: &str) -> Result<String> {
    if let Ok(region) = env::var("AWS_REGION") {
        return Ok(region);
    }
    let imds = Imds::connect(imds, ANSWER / 2).await?;
    imds.get("meta-data/placement/region").await?.context("the metadata service does not say the region")
}

/// The headers that sign a `POST /`. `headers` are in the order of their names, in lower case.
pub fn sign(
    credentials: &Credentials,
    region: &str,
    service: &str,
    headers: &[(&str, &str)],
    body: &str,
    now: Timestamp,
) -> Vec<(&'static str, String)> {
    let now = now.to_zoned(TimeZone::UTC);
    let (day, time) = (now.strftime("%Y%m%d").to_string(), now.strftime("%Y%m%dT%H%M%SZ").to_string());
    let mut added = vec![("x-amz-date", time.clone())];
    added.extend(credentials.token.clone().map(|token| ("x-amz-security-token", token)));
    let mut all: Vec<(&str, &str)> = headers.to_vec();
    all.extend(added.iter().map(|(name, value)| (*name, value.as_str())));
    all.sort_unstable();

    let names = all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = all.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let request = format!("POST\n/\n\n{lines}\n{names}\n{}", hex::encode(Sha256::digest(body)));
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex::encode(Sha256::digest(request)));
    let key = [day.as_str(), region, service, "aws4_request"]
        .iter()
        .fold(format!("AWS4{}", credentials.key).into_bytes(), |key, part| mac(&key, part));
    let signature = hex::encode(mac(&key, &text));
    let id = &credentials.id;
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
    added.push(("authorization", authorization));
    added
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // A key of HMAC has any length: RFC 2104, section 2.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// The profile `default` of a file as the AWS CLI has it.
fn of_file(path: &Path) -> Result<Credentials> {
    let text = secret(path)?;
    let lines = text.lines().map(str::trim);
    let profile = lines.skip_while(|line| *line != "[default]").skip(1).take_while(|line| !line.starts_with('['));
    let pairs: Vec<_> = profile.filter_map(|line| line.split_once('=')).map(|(a, b)| (a.trim(), b.trim())).collect();
    let value = |name: &str| pairs.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned());
    match (value("aws_access_key_id"), value("aws_secret_access_key")) {
        (Some(id), Some(key)) => Ok(Credentials { id, key, token: value("aws_session_token"), end: None }),
        _ => bail!("{}: no aws_access_key_id and aws_secret_access_key below [default]", path.display()),
    }
}

async fn of_role(address: &str) -> Result<Credentials> {
    let imds = Imds::connect(address, Duration::from_secs(5)).await?;
    let directory = "meta-data/iam/security-credentials/";
    let roles = imds.get(directory).await?.unwrap_or_default();
    let role = roles.lines().next().context("the instance has no role")?;
    let document = imds.get(&format!("{directory}{role}")).await?.context("the role has no credentials")?;
    serde_json::from_str(&document).with_context(|| format!("reading the credentials of the role {role}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The case `post-vanilla` of AWS's test suite for signatures of version 4.
    #[test]
    fn the_signature_is_that_of_the_published_example() {
        let credentials = Credentials {
            id: "AKIDEXAMPLE".into(),
            key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            token: None,
            end: None,
        };
        let now = "2015-08-30T12:36:00Z".parse().unwrap();
        let headers = [("host", "example.amazonaws.com")];
        let signed = sign(&credentials, "us-east-1", "service", &headers, "", now);
        assert_eq!(signed[0], ("x-amz-date", "20150830T123600Z".to_owned()));
        assert_eq!(
            signed[1].1,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
    }

    #[test]
    fn a_file_as_the_aws_cli_has_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "[other]\naws_access_key_id = no\n[default]\naws_access_key_id = A\naws_secret_access_key=B\n[last]\n";
        std::fs::write(file.path(), text).unwrap();
        let credentials = of_file(file.path()).unwrap();
        assert_eq!((credentials.id.as_str(), credentials.key.as_str()), ("A", "B"));
    }
}
