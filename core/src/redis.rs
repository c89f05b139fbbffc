//! redis: a connection that comes back ([`Link`]), and the server that the node runs for itself ([`server`]).

pub mod server;
mod users;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisResult, ScriptInvocation,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a reply may take. Commands that block on purpose do so for less.
const REPLY: Duration = Duration::from_secs(15);

/// How long a connection may be unused and is trusted: redis cuts off who is silent for longer than `IDLE` of [`server`].
const FRESH: Duration = Duration::from_secs(60);

/// How core0 itself gets in.
#[derive(Clone)]
pub struct Access {
    /// The socket of the server.
    pub socket: PathBuf,
    /// The password of redis' user `core0`.
    pub password: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// One connection, made when it is needed and again after it broke. Each user of redis has its own, as a command that
/// blocks would block the others.
pub struct Link {
    client: Client,
    connection: Option<MultiplexedConnection>,
    used: Instant,
}

impl Link {
    /// Not connected yet.
    pub fn new(access: &Access) -> RedisResult<Self> {
        let login = RedisConnectionInfo::default().set_username("core0").set_password(&access.password);
        let address = ConnectionAddr::Unix(access.socket.clone());
        let client = Client::open(address.into_connection_info()?.set_redis_settings(login))?;
        Ok(Self { client, connection: None, used: Instant::now() })
    }

    /// Sends a pipeline.
    pub async fn query<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> RedisResult<T> {
        let result = pipeline.query_async(self.connection().await?).await;
        self.judge(result)
    }

    /// Runs a script, by its hash when redis knows it.
    pub async fn invoke<T: FromRedisValue>(&mut self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        let result = script.invoke_async(self.connection().await?).await;
        self.judge(result)
    }

    async fn connection(&mut self) -> RedisResult<&mut MultiplexedConnection> {
        let fresh = self.used.elapsed() < FRESH;
        let connection = match self.connection.take().filter(|_| fresh) {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(REPLY));
                let mut connection =
                    self.client.get_multiplexed_async_connection_with_config(&config).await?;
                // When connections take too much memory, those of clients are cut off.
                redis::cmd("CLIENT").arg("NO-EVICT").arg("ON").exec_async(&mut connection).await?;
                connection
            }
        };
        self.used = Instant::now();
        Ok(self.connection.insert(connection))
    }

    /// Whatever is not a plain refusal leaves the connection in an unknown state.
    fn judge<T>(&mut self, result: RedisResult<T>) -> RedisResult<T> {
        if result.as_ref().is_err_and(|e| e.is_io_error() || e.is_timeout() || e.is_unrecoverable_error()) {
            self.connection = None;
        }
        result
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

/// A pipeline of one command.
pub fn one(name: &str, args: &[&str]) -> Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd(name);
    for arg in args {
        pipeline.arg(*arg);
    }
    pipeline
}

/// A path in a configuration file of redis, whatever bytes it is made of.
fn quoted(path: &Path) -> String {
    let mut quoted = String::from("\"");
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => quoted += &format!("\\x{other:02x}"),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_configuration() {
        let path = Path::new(OsStr::from_bytes(b"/a \"b\\\n\xff"));
        assert_eq!(quoted(path), r#""/a \"b\\\x0a\xff""#);
    }
}
