//! An authority of a test's own, and a server of TLS in front of a plain one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

use super::rig::Rig;

/// Certificates for a server at 127.0.0.1 and for the agent, as files.
pub struct Certificates {
    pub ca: PathBuf,
    pub server: (PathBuf, PathBuf),
    pub agent: (PathBuf, PathBuf),
}

impl Certificates {
    pub fn new(rig: &Rig) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pair = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
            // etcd is its own client as well.
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = params.signed_by(&key, &authority).unwrap();
            rig.write(&format!("{name}.pem"), &certificate.pem());
            (rig.path(&format!("{name}.pem")), rig.write_secret(&format!("{name}.key"), &key.serialize_pem()))
        };
        rig.write("ca.pem", &authority.pem());
        Self { ca: rig.path("ca.pem"), server: pair("server"), agent: pair("agent") }
    }

    /// The agent's side, in TOML.
    pub fn settings(&self) -> String {
        let (cert, key) = &self.agent;
        format!("{{ ca = \"{}\", cert = \"{}\", key = \"{}\" }}", self.ca.display(), cert.display(), key.display())
    }

    /// Takes connections of clients that the authority vouches for and hands them on to `plain`. Its address.
    pub fn serve_before(&self, plain: SocketAddr) -> SocketAddr {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&self.server.0).unwrap()],
                PrivateKeyDer::from_pem_file(&self.server.1).unwrap(),
            )
            .unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(forward(listener, TlsAcceptor::from(Arc::new(config)), plain));
        });
        address
    }
}

async fn forward(listener: std::net::TcpListener, acceptor: TlsAcceptor, plain: SocketAddr) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that is refused, or that goes, is no failure of the server.
            if let Ok(mut client) = acceptor.accept(stream).await {
                let mut server = tokio::net::TcpStream::connect(plain).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}
