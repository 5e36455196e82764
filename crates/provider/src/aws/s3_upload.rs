//! Uploading a file to S3 under the digest of its content.
//!
//! S3 compares what arrives with checksums that were made while the file was read, so what is there is whole. Who
//! comes second leaves alone what is there: by its key it is the same.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, Length};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cli::narrate;
use futures_util::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use super::failure::{Explain, code, is_not_found};
use super::s3::{Url, exists};
use super::wait::{unless_interrupted, until};

/// What is larger is sent in parts. S3 takes parts from 5 MiB on ("Amazon S3 multipart upload limits").
const PART: u64 = 16 << 20;
/// S3 takes no more for one object (ibid.).
const MOST_PARTS: u64 = 10_000;
/// Parts that are sent at once. They are read from the file as they are sent, and not kept.
const AT_ONCE: usize = 4;
/// Buffer of the first reading.
const BUFFER: usize = 1 << 20;
/// How long an object may be in the way of others that write it at the same time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a file holds, as far as S3 is told beforehand.
pub(super) struct Content {
    /// SHA-256 of it all.
    pub(super) digest: [u8; 32],
    length: u64,
    part_length: u64,
    /// SHA-256 of each part.
    parts: Vec<[u8; 32]>,
}

impl Content {
    /// Reads the file once.
    pub(super) fn of(file: &Path) -> io::Result<Self> {
        let mut file = File::open(file)?;
        let part_length = PART.max(file.metadata()?.len().div_ceil(MOST_PARTS));
        let (mut whole, mut parts, mut length) = (Sha256::new(), Vec::new(), 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            let (mut part, mut rest) = (Sha256::new(), (&mut file).take(part_length));
            loop {
                let count = rest.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                whole.update(&buffer[..count]);
                part.update(&buffer[..count]);
            }
            let read = part_length - rest.limit();
            length += read;
            if read > 0 || parts.is_empty() {
                parts.push(part.finalize().into());
            }
            if read < part_length {
                return Ok(Self { digest: whole.finalize().into(), length, part_length, parts });
            }
        }
    }
}

/// How an attempt to make an object ended.
enum Attempt {
    /// It is there, made by this attempt or by somebody else before.
    There,
    /// S3 wants it to be tried again, for somebody else was at it (409 ConditionalRequestConflict).
    Again,
}

/// Makes the object `url` of a file with that content. What is there already is left alone.
pub(super) async fn upload(s3: &Client, url: &Url, file: &Path, content: &Content) -> Result<()> {
    until(&format!("other uploads of {url}"), PATIENCE, async || {
        let attempt = if content.parts.len() == 1 {
            unless_interrupted(whole(s3, url, file, content)).await?
        } else {
            in_parts(s3, url, file, content).await?
        };
        Ok(match attempt {
            Attempt::There => Some(()),
            Attempt::Again => None,
        })
    })
    .await
}

async fn whole(s3: &Client, url: &Url, file: &Path, content: &Content) -> Result<Attempt> {
    let doing = || format!("uploading {} to {url}", file.display());
    let sent = s3
        .put_object()
        .bucket(&url.bucket)
        .key(&url.key)
        .if_none_match("*")
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .checksum_sha256(BASE64_STANDARD.encode(content.digest))
        .body(ByteStream::from_path(file).await.with_context(doing)?)
        .send()
        .await;
    match sent.as_ref().err().and_then(code) {
        Some("PreconditionFailed") => Ok(Attempt::There),
        Some("ConditionalRequestConflict") => Ok(Attempt::Again),
        _ => sent.map(|_| Attempt::There).doing("s3:PutObject", doing),
    }
}

/// Whatever happens, parts that have become no object are given up: they would cost like one.
async fn in_parts(s3: &Client, url: &Url, file: &Path, content: &Content) -> Result<Attempt> {
    let begun = s3
        .create_multipart_upload()
        .bucket(&url.bucket)
        .key(&url.key)
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .send()
        .await
        .doing("s3:PutObject", || format!("beginning the upload of {} to {url}", file.display()))?;
    let id = begun.upload_id().with_context(|| format!("S3 began an upload to {url} and did not say which"))?;
    let ended = match unless_interrupted(send_parts(s3, url, id, file, content)).await {
        Ok(parts) => complete(s3, url, id, parts).await,
        Err(error) => Err(error),
    };
    if !matches!(ended, Ok((_, true))) {
        give_up(s3, url, id).await;
    }
    ended.map(|(attempt, _)| attempt)
}

async fn send_parts(s3: &Client, url: &Url, id: &str, file: &Path, content: &Content) -> Result<Vec<CompletedPart>> {
    let send = async |(index, digest): (usize, &[u8; 32])| {
        let number = i32::try_from(index + 1)?;
        let offset = index as u64 * content.part_length;
        let doing = || format!("uploading part {number} of {} to {url}", file.display());
        let length = Length::Exact(content.part_length.min(content.length - offset));
        let body = ByteStream::read_from().path(file).offset(offset).length(length).build().await;
        let checksum = BASE64_STANDARD.encode(digest);
        let sent = s3
            .upload_part()
            .bucket(&url.bucket)
            .key(&url.key)
            .upload_id(id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&checksum)
            .body(body.with_context(doing)?)
            .send()
            .await
            .doing("s3:PutObject", doing)?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(sent.e_tag).checksum_sha256(checksum);
        anyhow::Ok(part.build())
    };
    stream::iter(content.parts.iter().enumerate()).map(send).buffered(AT_ONCE).try_collect().await
}

/// Makes the parts one object. Also says whether the upload is over by that.
async fn complete(s3: &Client, url: &Url, id: &str, parts: Vec<CompletedPart>) -> Result<(Attempt, bool)> {
    let sent = s3
        .complete_multipart_upload()
        .bucket(&url.bucket)
        .key(&url.key)
        .upload_id(id)
        .if_none_match("*")
        .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
        .send()
        .await;
    match sent.as_ref().err().and_then(code) {
        // Also if the answer to this very call was lost and it was sent again.
        Some("PreconditionFailed") => Ok((Attempt::There, false)),
        Some("ConditionalRequestConflict") => Ok((Attempt::Again, false)),
        Some("NoSuchUpload") if exists(s3, url).await? => Ok((Attempt::There, true)),
        _ => sent
            .map(|_| (Attempt::There, true))
            .doing("s3:PutObject", || format!("putting the parts of {url} together")),
    }
}

async fn give_up(s3: &Client, url: &Url, id: &str) {
    let sent = s3.abort_multipart_upload().bucket(&url.bucket).key(&url.key).upload_id(id).send().await;
    if let Err(error) = sent.as_ref()
        && !is_not_found(error)
        && code(error) != Some("NoSuchUpload")
        && let Err(why) = sent.doing("s3:AbortMultipartUpload", || format!("giving up the upload {id} to {url}"))
    {
        narrate::note(&format!("{why:#}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_digested_as_a_whole_and_in_parts() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes = vec![7; PART as usize + 5];
        io::Write::write_all(&mut file, &bytes).unwrap();
        let content = Content::of(file.path()).unwrap();
        assert_eq!(content.digest, <[u8; 32]>::from(Sha256::digest(&bytes)));
        let parts: Vec<[u8; 32]> = bytes.chunks(PART as usize).map(|part| Sha256::digest(part).into()).collect();
        assert_eq!((content.parts, content.length), (parts, PART + 5));
    }

    #[test]
    fn an_empty_file_is_one_part() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content = Content::of(file.path()).unwrap();
        assert_eq!((content.parts.len(), content.length), (1, 0));
    }
}
