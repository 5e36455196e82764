//! Objects in S3, by URL.

use std::fmt;

use anyhow::{Result, bail};
use aws_sdk_s3::Client;
use cli::BadInput;

use super::failure::{self, Explain};
use super::wait::unless_interrupted;

/// `s3://BUCKET/KEY`; the key may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub(super) bucket: String,
    pub(super) key: String,
}

impl Url {
    /// Takes a URL apart. An error names it, and what was being done.
    pub fn parse(doing: &str, url: &str) -> Result<Self, BadInput> {
        let refuse = |why: &str| BadInput::new(doing, format!("'{url}' {why}"), "write s3://BUCKET/KEY");
        let rest = url.strip_prefix("s3://").ok_or_else(|| refuse("is no URL of S3"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        // "Bucket naming rules" of S3's user guide.
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fits) {
            return Err(refuse("names no bucket: 3 to 63 lower-case letters, digits, dashes and dots"));
        }
        let key = key.strip_suffix('/').unwrap_or(key);
        if key.split('/').any(str::is_empty) && !key.is_empty() {
            return Err(refuse("has an empty part between two slashes"));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// What is at `path` below this.
    pub(super) fn join(&self, path: &str) -> Self {
        let key = if self.key.is_empty() { path.to_owned() } else { format!("{}/{path}", self.key) };
        Self { bucket: self.bucket.clone(), key }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.key.is_empty() { "" } else { "/" };
        write!(f, "s3://{}{slash}{}", self.bucket, self.key)
    }
}

/// Whether there is an object at `url`.
pub(super) async fn exists(s3: &Client, url: &Url) -> Result<bool> {
    let asked = async { Ok(s3.head_object().bucket(&url.bucket).key(&url.key).send().await) };
    match unless_interrupted(asked).await? {
        Ok(_) => Ok(true),
        Err(error) if failure::is_not_found(&error) => Ok(false),
        // The answer to HEAD has no body that could say it. Who may not list a bucket is not told what it lacks.
        Err(error) if error.raw_response().is_some_and(|answer| answer.status().as_u16() == 403) => bail!(
            "looking for {url} (s3:HeadObject): 403 Forbidden; allow the actions s3:GetObject and, on the bucket, \
             s3:ListBucket in the policy of the role or user"
        ),
        Err(error) => Err(error).doing("s3:GetObject", || format!("looking for {url}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together() {
        let url = Url::parse("testing", "s3://my-bucket/some/prefix/").unwrap();
        assert_eq!(url.join("sha256/ab").to_string(), "s3://my-bucket/some/prefix/sha256/ab");
        let url = Url::parse("testing", "s3://my-bucket").unwrap();
        assert_eq!((url.to_string().as_str(), url.join("x").key.as_str()), ("s3://my-bucket", "x"));
    }

    #[test]
    fn a_fault_names_the_url() {
        for (url, why) in [
            ("s3://", "names no bucket"),
            ("s3://Bucket/key", "names no bucket"),
            ("s3://bucket//key", "an empty part"),
            ("https://bucket/key", "no URL of S3"),
        ] {
            let fault = Url::parse("opening it", url).unwrap_err().to_string();
            assert!(fault.starts_with(&format!("opening it: '{url}' ")) && fault.contains(why), "{fault}");
        }
    }
}
