//! TLS before a plain server: certificates of an authority of its own, good and bad ones.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What is the matter with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Nothing, for who trusts the authority.
    Good,
    /// It was good until the year 2001.
    Expired,
    /// It is for another host.
    ForOther,
}

/// Who signs certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }
}

impl Authority {
    /// Writes its certificate into `folder`, for `SSL_CERT_FILE`.
    pub fn file_in(&self, folder: &Path) -> PathBuf {
        let path = folder.join("authority.pem");
        std::fs::write(&path, self.issuer.pem()).expect("the folder is there");
        path
    }

    /// Speaks TLS for the server at `behind`, with such a certificate.
    pub fn front(&self, certificate: Certificate, behind: SocketAddr) -> Front {
        let name = if certificate == Certificate::ForOther { "elsewhere.example" } else { "127.0.0.1" };
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        if certificate == Certificate::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        let chain = vec![CertificateDer::from(signed.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key that was just made");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|versions| versions.with_no_client_auth().with_single_cert(chain, key))
            .expect("a key and its certificate");
        Front::listen(Arc::new(config), behind)
    }
}

/// A server that speaks TLS. Dropping it ends it.
pub struct Front {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    listener: TcpListener,
    accepting: Option<JoinHandle<()>>,
}

impl Front {
    fn listen(config: Arc<ServerConfig>, behind: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (incoming, is_over) =
            (listener.try_clone().expect("a descriptor"), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&is_over);
        let accepting = std::thread::spawn(move || {
            for stream in incoming.incoming() {
                if over.load(SeqCst) {
                    return;
                }
                let (Ok(stream), config) = (stream, Arc::clone(&config)) else { continue };
                // What a client makes of a certificate is what is tested; here it is the end of a connection.
                std::thread::spawn(move || drop(forward(stream, config, behind)));
            }
        });
        Front { address, is_over, listener, accepting: Some(accepting) }
    }

    /// As `--from` names it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst);
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).expect("it listens");
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the listener ends when told");
        }
    }
}

/// A request, its answer, and so on: neither side speaks out of turn in HTTP/1.1 without a body in the request.
fn forward(stream: TcpStream, config: Arc<ServerConfig>, behind: SocketAddr) -> io::Result<()> {
    // Nobody waits for a client that says nothing.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut client = StreamOwned::new(session, stream);
    let mut head = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            let read = client.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            head.extend_from_slice(&buffer[..read]);
        }
        // A connection of its own for each answer, which ends with it.
        let mut server = TcpStream::connect(behind)?;
        server.write_all(&head)?;
        server.shutdown(Shutdown::Write)?;
        head.clear();
        loop {
            let read = server.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            client.write_all(&buffer[..read])?;
        }
    }
}
