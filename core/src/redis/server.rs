//! The redis that a node runs: its files, its users, and the service that keeps it up.
//!
//! Passwords lie in files of mode 0600 and in no argument. What is written is in an append-only file before redis
//! answers, so a redis that is killed comes back with every command that it took and every result that it gave. It is
//! not synced: after the machine itself went down there is nobody to answer.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::{Access, Link, one, quoted};
use crate::config::Config;
use crate::paths::Paths;
use crate::process::Process;

/// Most bytes that redis keeps. When they are used up, the results that would expire first go.
const MEMORY: &str = "256mb";
/// Where redis listens in any case.
const LOOPBACK: &str = "127.0.0.1";
/// What a named user can do: push commands, read results and streams. Categories would give too much.
const CLIENT: &str = "-@all +rpush +lpush +lpop +rpop +blpop +brpop +rpoplpush +brpoplpush +lmove +blmove +lrange \
     +lindex +llen +exists +ttl +pttl +type +xread +xrange +xrevrange +xlen +xinfo +ping +echo +hello +auth +select \
     +multi +exec +discard +watch +unwatch +reset +quit +command +client|setname +client|getname +client|id";

/// What has to be known of a server that is set up.
#[derive(Clone)]
pub struct Server {
    /// How core0 gets in.
    pub access: Access,
    /// The port on the loopback.
    pub port: u16,
    /// The password of redis' user `default`, the administrator of the node.
    pub password: String,
    /// Somebody else knows a password, too.
    for_others: bool,
}

/// Why redis does not listen where it should.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its files cannot be written.
    #[error("cannot write the files of redis: {0}")]
    Files(#[from] io::Error),
    /// It refuses.
    #[error("redis does not listen there: {0}")]
    Refused(#[from] ::redis::RedisError),
}

impl Server {
    /// Writes the files of a server. A port and passwords that are there already stay, so that clients find it again.
    pub fn set_up(paths: &Paths, config: &Config) -> io::Result<Self> {
        let dir = paths.redis_data();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let password = secret(&paths.run().join("password"))?;
        let access = Access { socket: paths.redis_socket(), password: secret(&dir.join("core0.password"))? };
        let port = match config.redis.port {
            0 => port(&dir.join("port"))?,
            port => port,
        };
        private(&dir.join("users.acl"), &users(&access.password, &password, config)?)?;
        let server = Self { access, port, password, for_others: config.redis.password_sha256.is_some() };
        server.configure(paths)?;
        Ok(server)
    }

    /// Whether somebody can log in who is not on this machine: only then may redis listen on a network.
    pub fn is_for_others(&self) -> bool {
        self.for_others
    }

    /// Has redis listen on these addresses beside the loopback, from now on and when it is started again.
    pub async fn listen(&self, paths: &Paths, addresses: &[IpAddr]) -> Result<(), ListenError> {
        let others = addresses.iter().filter(|_| self.for_others);
        // With `-`, redis starts though an address is gone.
        let bind: String = others.map(|address| format!(" -{address}")).collect();
        private(&paths.redis_data().join("bind"), &bind)?;
        self.configure(paths)?;
        let set = one("CONFIG", &["SET", "bind", &format!("{LOOPBACK}{bind}")]);
        Ok(Link::new(&self.access)?.query(&set).await?)
    }

    fn configure(&self, paths: &Paths) -> io::Result<()> {
        private(&paths.redis_config(), &configuration(paths, self.port, self.for_others))
    }

    /// Whether something else has the port.
    pub fn port_is_taken(&self) -> bool {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port));
        bound.is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse)
    }

    /// Chooses another port, when something else took the old one.
    pub fn move_port(&mut self, paths: &Paths) -> io::Result<()> {
        let file = paths.redis_data().join("port");
        match fs::remove_file(&file) {
            // It was chosen by the configuration.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
        self.port = port(&file)?;
        self.configure(paths)
    }

    /// The process to run.
    pub fn process(paths: &Paths) -> Process {
        let argv = vec!["redis-server".to_string(), paths.redis_config().display().to_string()];
        Process { argv, ..Process::default() }
    }
}

fn configuration(paths: &Paths, port: u16, for_others: bool) -> String {
    let dir = paths.redis_data();
    let bind = fs::read_to_string(dir.join("bind")).unwrap_or_default();
    let bind = if for_others { bind.as_str() } else { "" };
    format!(
        "bind {LOOPBACK}{bind}\nport {port}\nunixsocket {socket}\nunixsocketperm 700\naclfile {acl}\ndir {dir}\n\
         daemonize no\nlogfile \"\"\nloglevel warning\nsave \"\"\nappendonly yes\nappendfsync no\n\
         stop-writes-on-bgsave-error no\nmaxmemory {MEMORY}\nmaxmemory-policy volatile-ttl\nmaxclients 2000\n\
         proto-max-bulk-len 4mb\nclient-query-buffer-limit 16mb\n\
         client-output-buffer-limit normal 64mb 32mb 60\ntcp-keepalive 60\ntimeout 0\n",
        socket = quoted(&paths.redis_socket()),
        acl = quoted(&dir.join("users.acl")),
        dir = quoted(&dir),
    )
}

fn users(own: &str, admin: &str, config: &Config) -> io::Result<String> {
    let mut acl = format!("user core0 on >{own} ~* &* +@all\n");
    // redis reads its append-only file in the name of this user: what it may not do is missing after a restart.
    let other = config.redis.password_sha256.as_ref().map(|hash| format!(" #{hash}")).unwrap_or_default();
    writeln!(acl, "user default on >{admin}{other} ~* resetchannels +@all -@admin -@dangerous +info")
        .map_err(io::Error::other)?;
    for (name, user) in &config.users {
        let password = fs::read_to_string(&user.password_file)?;
        let password = password.trim_end_matches('\n');
        if password.is_empty() || password.contains(char::is_whitespace) {
            let fault =
                format!("the password of {name} is empty or has spaces: {}", user.password_file.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
        }
        let keys = format!("~core:user:{name} ~result:{name}:* ~stream:{name}:* ~logger:{name}:*");
        writeln!(acl, "user {name} on >{password} resetchannels {keys} {CLIENT}")
            .map_err(io::Error::other)?;
    }
    Ok(acl)
}

/// A file that only its owner reads, whole or not there.
fn private(path: &Path, content: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::options();
    file.create(true).truncate(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let mut file = file.open(&new)?;
    file.write_all(content.as_bytes())?;
    fs::rename(&new, path)
}

/// A secret of 256 bits in a file, made at first.
fn secret(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(secret) if secret.len() >= 32 => return Ok(secret),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(_) | Err(_) => {}
    }
    let mut random = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    private(path, &secret)?;
    Ok(secret)
}

/// A port of the loopback that is free when it is chosen.
fn port(path: &Path) -> io::Result<u16> {
    if let Some(port) = fs::read_to_string(path).ok().and_then(|text| text.parse().ok()) {
        return Ok(port);
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    private(path, &port.to_string())?;
    Ok(port)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn secrets_and_the_port_stay_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::development(dir.path());
        let first = Server::set_up(&paths, &Config::default()).unwrap();
        let second = Server::set_up(&paths, &Config::default()).unwrap();
        assert_eq!((first.port, &first.password), (second.port, &second.password));
        assert_ne!(first.password, first.access.password);
        for file in ["password", "redis/core0.password", "redis/users.acl", "redis/redis.conf"] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert!(!first.is_for_others());
        let argv = Server::process(&paths).argv.join(" ");
        assert!(!argv.contains(&first.password), "{argv}");
    }

    #[test]
    fn it_listens_on_a_network_only_when_somebody_else_has_a_password() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::development(dir.path());
        let read = |file: &str| fs::read_to_string(dir.path().join("redis").join(file)).unwrap();
        Server::set_up(&paths, &Config::default()).unwrap();
        // What an earlier manager left.
        fs::write(dir.path().join("redis/bind"), " -10.0.2.15").unwrap();
        Server::set_up(&paths, &Config::default()).unwrap();
        assert!(read("redis.conf").starts_with("bind 127.0.0.1\n"));
        let mut config = Config::default();
        config.redis.password_sha256 = Some("ab".repeat(32));
        config.redis.port = 6379;
        let server = Server::set_up(&paths, &config).unwrap();
        assert!(read("redis.conf").starts_with("bind 127.0.0.1 -10.0.2.15\nport 6379\n"));
        assert!(server.is_for_others() && read("users.acl").contains(&format!(" #{} ", "ab".repeat(32))));
    }
}
