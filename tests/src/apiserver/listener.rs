//! TLS, with certificates that are generated at the start.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};
use tokio_rustls::server::TlsStream;

/// How long a client that does not finish its handshake can delay others.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

/// The server's certificates and key.
pub struct Identity {
    authority: String,
    certificate: String,
    key: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    #[track_caller]
    pub fn generate() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("random numbers");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("a key of our own");
        let mut server = CertificateParams::new(vec!["localhost".to_owned()]).expect("a host name");
        server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let key = KeyPair::generate().expect("random numbers");
        let certificate = server.signed_by(&key, &authority).expect("a key of our own");
        let key_text = key.serialize_pem();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("key and certificate belong together");
        Self { authority: authority.pem(), certificate: certificate.pem(), key: key_text, config: Arc::new(config) }
    }

    /// The certificate of the authority, as PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The server's certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The server's key, as PEM.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Accepts TLS connections.
pub struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
    address: SocketAddr,
}

impl TlsListener {
    pub async fn bind(address: SocketAddr, identity: &Identity) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let address = tcp.local_addr()?;
        Ok(Self { tcp, acceptor: TlsAcceptor::from(Arc::clone(&identity.config)), address })
    }

    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            if let Ok(Ok(stream)) = timeout(HANDSHAKE_PATIENCE, self.acceptor.accept(stream)).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
