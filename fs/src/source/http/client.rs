//! The HTTP client of a gateway: how it connects, keeps connections, follows redirects and judges certificates.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, tls};
use rustls_platform_verifier::BuilderVerifierExt;

use super::address::{self, NEIGHBOUR};
use super::resolver::PublicOnly;
use crate::reference::Reach;

/// A gateway that does not let us in within this time is not there.
const CONNECT: Duration = Duration::from_secs(2);
/// Unused connections are closed before common servers close them under us.
const IDLE: Duration = Duration::from_secs(20);
/// As many connections as blocks may be under way.
const CONNECTIONS: usize = 32;
/// An HTTP/2 connection that does not answer a ping is dropped, else all further requests would join those that hang on it.
const PING: Duration = Duration::from_secs(3);
/// Redirects that are followed.
const REDIRECTS: usize = 3;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no way to judge certificates.
    #[error("no certificates to judge https sources by: install ca-certificates, or set SSL_CERT_FILE")]
    Certificates(#[source] rustls::Error),
    /// The HTTP library refuses.
    #[error("the HTTP client does not start")]
    Http(#[source] reqwest::Error),
}

/// How a gateway is reached, and how far its names and redirects may lead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'a> {
    /// Over TCP.
    Plain(Reach),
    /// Over TLS.
    Encrypted(Reach),
    /// Over a unix socket.
    Socket(&'a Path),
    /// Over TCP to the RPC of a node, which redirects nobody and speaks HTTP/1.1.
    Rpc,
    /// The same over TLS.
    EncryptedRpc,
    /// Over TCP to one address, without following it anywhere.
    Neighbour(SocketAddr),
}

/// A client for one gateway. Certificates are only read when it is asked over TLS: that takes milliseconds.
pub(crate) fn build(way: Way<'_>) -> Result<Client, ClientError> {
    let builder = Client::builder()
        .user_agent(concat!("g8os/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(CONNECTIONS)
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING);
    let builder = match way {
        Way::Plain(reach) | Way::Encrypted(reach) => {
            let builder = builder.redirect(Policy::custom(move |attempt| follow(attempt, reach)));
            match reach {
                Reach::Anywhere => builder,
                Reach::Public => builder.dns_resolver(PublicOnly),
            }
        }
        Way::Socket(path) => builder.redirect(Policy::none()).unix_socket(path),
        Way::Rpc | Way::EncryptedRpc => builder.redirect(Policy::none()).http1_only(),
        Way::Neighbour(address) => builder.redirect(Policy::none()).resolve(NEIGHBOUR, address),
    };
    let builder = builder.tls_backend_preconfigured(tls_config(way)?);
    builder.min_tls_version(tls::Version::TLS_1_2).build().map_err(ClientError::Http)
}

/// rustls with ring, and the certificates of the system. Without encryption nobody is trusted, so that a redirect to https
/// fails instead of being believed.
fn tls_config(way: Way<'_>) -> Result<rustls::ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Certificates)?;
    let trusting = match way {
        Way::Encrypted(_) | Way::EncryptedRpc => {
            versions.with_platform_verifier().map_err(ClientError::Certificates)?
        }
        Way::Plain(_) | Way::Socket(_) | Way::Rpc | Way::Neighbour(_) => {
            versions.with_root_certificates(rustls::RootCertStore::empty())
        }
    };
    let mut config = trusting.with_no_client_auth();
    config.alpn_protocols = match way {
        Way::Rpc | Way::EncryptedRpc => vec![b"http/1.1".to_vec()],
        Way::Plain(_) | Way::Encrypted(_) | Way::Socket(_) | Way::Neighbour(_) => {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        }
    };
    Ok(config)
}

fn follow(attempt: Attempt<'_>, reach: Reach) -> reqwest::redirect::Action {
    let was_encrypted = attempt.previous().iter().any(|url| url.scheme() == "https");
    if was_encrypted && attempt.url().scheme() != "https" {
        return attempt.error("redirected from https to http");
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("redirected too often");
    }
    if reach == Reach::Public
        && let Err(refused) = address::judge(attempt.url())
    {
        return attempt.error(refused);
    }
    attempt.follow()
}

/// A certificate does not become right by asking again. An `io::Error` is no link of the chain to what it wraps, so both are
/// looked at.
pub(crate) fn is_about_tls(error: &(dyn Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || wrapped.is_some_and(|inner| is_about_tls(inner))
        || error.source().is_some_and(is_about_tls)
}
