//! The redis that a node runs: its files, its users, and the service that keeps it up.
//!
//! Passwords lie in files of mode 0600 and in no argument. What is written is in an append-only file before redis
//! answers, so a redis that is killed comes back with every command that it took and every result that it gave. It is
//! not synced: after the machine itself went down there is nobody to answer.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Access, Link, one, quoted, users};
use crate::config::Config;
use crate::paths::Paths;
use crate::process::Process;
use crate::sys::text;
use crate::sys::tool::{Tool, ToolError};

/// Where redis puts its append-only file, below its folder.
const DATA: &str = "appendonlydir";

/// Most bytes that redis keeps. When they are used up, the results that would expire first go; when there are none, clients
/// are refused, and what core0 does goes on.
const MEMORY: &str = "256mb";
/// Where redis listens in any case.
const LOOPBACK: &str = "127.0.0.1";
/// Most bytes of that for connections. The greediest are cut off, and core0's own never are.
const CONNECTIONS: &str = "64mb";

/// Seconds after which redis cuts off who is silent, whether it ever spoke or not: 2000 such ones would be all that it takes. Who
/// waits for a result or a stream is not silent, and clients connect again.
const IDLE: u32 = 900;

/// What has to be known of a server that is set up.
#[derive(Clone)]
pub struct Server {
    /// How core0 gets in.
    pub access: Access,
    /// The port on the loopback.
    pub port: u16,
    /// Whether the configuration names it.
    pub port_is_configured: bool,
    /// The password of redis' user `default`, the administrator of the node.
    pub password: String,
    /// Somebody else knows a password, too.
    for_others: Arc<AtomicBool>,
    dir: PathBuf,
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
        let acl = users::acl(&access.password, &password, config)?;
        note_changed_users(&dir, &acl)?;
        text::write_private(&dir.join("users.acl"), &acl)?;
        let for_others = Arc::new(AtomicBool::new(config.redis.password_sha256.is_some()));
        let port_is_configured = config.redis.port != 0;
        let server = Self { access, port, port_is_configured, password, for_others, dir };
        server.configure(paths)?;
        Ok(server)
    }

    /// Whether somebody can log in who is not on this machine: only then may redis listen on a network.
    pub fn is_for_others(&self) -> bool {
        self.for_others.load(Ordering::SeqCst)
    }

    /// Has another password of the administrator hold beside the node's own, by its SHA-256, or none any more. Who came in with
    /// the one before is cut off.
    pub async fn let_in(&self, paths: &Paths, hash: Option<&str>) -> Result<(), ListenError> {
        let file = self.dir.join("users.acl");
        let acl = users::with_administrator(&fs::read_to_string(&file)?, &self.password, hash);
        text::write_private(&file, &acl)?;
        let before = self.for_others.swap(hash.is_some(), Ordering::SeqCst);
        self.configure(paths)?;
        Link::new(&self.access)?.query::<()>(&one("ACL", &["LOAD"])).await?;
        if before {
            Link::new(&self.access)?.query::<()>(&one("CLIENT", &["KILL", "USER", "default"])).await?;
        }
        Ok(())
    }

    /// Has redis listen on these addresses beside the loopback, from now on and when it is started again.
    pub async fn listen(&self, paths: &Paths, addresses: &[IpAddr]) -> Result<(), ListenError> {
        let others = addresses.iter().filter(|_| self.is_for_others());
        // With `-`, redis starts though an address is gone.
        let bind: String = others.map(|address| format!(" -{address}")).collect();
        text::write_private(&self.dir.join("bind"), &bind)?;
        self.configure(paths)?;
        let set = one("CONFIG", &["SET", "bind", &format!("{LOOPBACK}{bind}")]);
        Ok(Link::new(&self.access)?.query(&set).await?)
    }

    fn configure(&self, paths: &Paths) -> io::Result<()> {
        text::write_private(&paths.redis_config(), &configuration(paths, self.port, self.is_for_others()))
    }

    /// Whether something else has the port.
    pub fn port_is_taken(&self) -> bool {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port));
        bound.is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse)
    }

    /// Chooses another port, when something else took the old one.
    pub fn move_port(&mut self, paths: &Paths) -> io::Result<()> {
        let file = paths.redis_data().join("port");
        fs::remove_file(&file)?;
        self.port = port(&file)?;
        self.configure(paths)
    }

    /// The process to run; without its port when something else has that.
    pub fn process(paths: &Paths, without_port: bool) -> Process {
        let mut argv = vec!["redis-server".to_string(), paths.redis_config().display().to_string()];
        if without_port {
            argv.extend(["--port".into(), "0".into()]);
        }
        Process { argv, ..Process::default() }
    }

    /// Who is not what a redis may know that an earlier manager started; `None` when it knows the users as they are.
    pub fn changed_users(&self) -> io::Result<Option<BTreeSet<String>>> {
        match fs::read_to_string(changed_file(&self.dir)) {
            Ok(names) => Ok(Some(names.lines().map(str::to_owned).collect())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// redis knows the users as they are.
    pub fn users_are_known(&self) -> io::Result<()> {
        match fs::remove_file(changed_file(&self.dir)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether redis does not start because of what it kept.
    pub async fn is_damaged(&self) -> Result<bool, ToolError> {
        let manifest = self.dir.join(DATA).join("appendonly.aof.manifest");
        if !manifest.exists() {
            return Ok(false);
        }
        match Tool::new("redis-check-aof").arg(manifest).run().await {
            Ok(_) => Ok(false),
            Err(ToolError::Failed { .. }) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// Puts aside what redis kept, in the place of what was put aside before.
    pub fn put_aside(&self) -> io::Result<PathBuf> {
        let aside = self.dir.join(format!("{DATA}.damaged"));
        match fs::remove_dir_all(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        fs::rename(self.dir.join(DATA), &aside)?;
        Ok(aside)
    }
}

/// Names whose lines in `users.acl` change. They are noted before the file changes and until redis knows it, also when the
/// manager is killed in between.
fn note_changed_users(dir: &Path, acl: &str) -> io::Result<()> {
    let old = match fs::read_to_string(dir.join("users.acl")) {
        Ok(old) if old == acl => return Ok(()),
        Ok(old) => old,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let mut names = users::changed(&old, acl);
    match fs::read_to_string(changed_file(dir)) {
        Ok(before) => names.extend(before.lines().map(str::to_owned)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    text::write_private(&changed_file(dir), &names.join("\n"))
}

fn changed_file(dir: &Path) -> PathBuf {
    dir.join("users.changed")
}

fn configuration(paths: &Paths, port: u16, for_others: bool) -> String {
    let dir = paths.redis_data();
    let bind = fs::read_to_string(dir.join("bind")).unwrap_or_default();
    let bind = if for_others { bind.as_str() } else { "" };
    format!(
        "bind {LOOPBACK}{bind}\nport {port}\ndatabases 1\nunixsocket {socket}\nunixsocketperm 700\naclfile {acl}\ndir {dir}\n\
         daemonize no\nlogfile \"\"\nloglevel warning\nsave \"\"\nappendonly yes\nappendfsync no\n\
         stop-writes-on-bgsave-error no\nmaxmemory {MEMORY}\nmaxmemory-policy volatile-ttl\nmaxclients 2000\n\
         maxmemory-clients {CONNECTIONS}\n\
         proto-max-bulk-len 4mb\nclient-query-buffer-limit 16mb\n\
         client-output-buffer-limit normal 64mb 32mb 60\ntcp-keepalive 60\ntimeout {IDLE}\n",
        socket = quoted(&paths.redis_socket()),
        acl = quoted(&dir.join("users.acl")),
        dir = quoted(&dir),
    )
}

/// A secret of 256 bits in a file, made at first; or what the administrator has put there.
fn secret(path: &Path) -> io::Result<String> {
    match users::password(path) {
        Ok(secret) => return Ok(secret),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io::Error::new(e.kind(), format!("the password in {}: {e}", path.display()))),
    }
    let mut random = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    text::write_private(path, &secret)?;
    Ok(secret)
}

/// A port of the loopback that is free when it is chosen.
fn port(path: &Path) -> io::Result<u16> {
    if let Some(port) = fs::read_to_string(path).ok().and_then(|text| text.parse().ok()) {
        return Ok(port);
    }
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    text::write_private(path, &port.to_string())?;
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
        // One of the administrator's own, as an editor writes it; and one that redis could not read.
        fs::write(dir.path().join("password"), "own-password\n").unwrap();
        assert_eq!(Server::set_up(&paths, &Config::default()).unwrap().password, "own-password");
        fs::write(dir.path().join("password"), "two words").unwrap();
        let error = Server::set_up(&paths, &Config::default()).err().unwrap();
        assert!(error.to_string().contains("password: it has blanks"), "{error}");
        let argv = Server::process(&paths, false).argv.join(" ");
        assert!(!argv.contains(&first.password), "{argv}");
    }

    #[test]
    fn it_listens_on_a_network_only_when_somebody_else_has_a_password() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::development(dir.path());
        let read = |file: &str| fs::read_to_string(dir.path().join("redis").join(file)).unwrap();
        assert!(!Server::set_up(&paths, &Config::default()).unwrap().is_for_others());
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

    /// A redis of its own, as the manager starts it.
    struct Running(std::process::Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[tokio::test]
    async fn a_password_that_comes_later_lets_in_and_one_that_is_taken_back_cuts_off() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::development(dir.path());
        let server = Server::set_up(&paths, &Config::default()).unwrap();
        let argv = Server::process(&paths, false).argv;
        let mut command = std::process::Command::new(&argv[0]);
        let _running = Running(command.args(&argv[1..]).stdout(std::process::Stdio::null()).spawn().unwrap());
        let began = std::time::Instant::now();
        let ping = async || Link::new(&server.access)?.query::<()>(&one("PING", &[])).await;
        while let Err(e) = ping().await {
            assert!(began.elapsed() < std::time::Duration::from_secs(60), "{e}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let enter = async || {
            let url = format!("redis://:secret@127.0.0.1:{}", server.port);
            let client = ::redis::Client::open(url)?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            ::redis::cmd("PING").query_async::<String>(&mut connection).await?;
            ::redis::RedisResult::Ok(connection)
        };
        assert!(enter().await.is_err() && !server.is_for_others());
        // SHA-256 of `secret`.
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        server.let_in(&paths, Some(hash)).await.unwrap();
        let mut guest = enter().await.unwrap();
        assert!(server.is_for_others() && server.clone().is_for_others());
        // What an administrator of this machine knew holds on.
        assert!(fs::read_to_string(dir.path().join("redis/users.acl")).unwrap().contains(&server.password));
        server.let_in(&paths, None).await.unwrap();
        assert!(enter().await.is_err() && !server.is_for_others());
        let cut = ::redis::cmd("PING").query_async::<String>(&mut guest).await;
        assert!(cut.is_err(), "{cut:?}");
    }
}
