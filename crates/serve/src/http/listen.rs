//! Connections: accepted until the server stops, with limits for slow clients.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::sync::watch;

/// How long to wait if there is no room for another connection.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a lack of room is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// The number of file descriptors that a server asks for, if the system allows it.
#[cfg(unix)]
const DESCRIPTORS: u64 = 65_536;
/// Those that are kept for models, logs and the like.
#[cfg(unix)]
const RESERVED: u64 = 64;

/// A socket.
pub enum Listener {
    /// Of the network.
    Tcp(TcpListener),
    /// Of this machine.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    /// Listens at an address.
    ///
    /// # Errors
    /// Those of the system: the address is in use, or not of this machine.
    pub async fn tcp(address: SocketAddr) -> std::io::Result<Listener> {
        TcpListener::bind(address).await.map(Listener::Tcp)
    }

    /// Listens at a path. A socket that a stopped server left is replaced.
    ///
    /// # Errors
    /// Those of the system; a path at which another server listens, or that is not a socket.
    #[cfg(unix)]
    pub async fn unix(path: &Path) -> std::io::Result<Listener> {
        use std::os::unix::fs::FileTypeExt;
        if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            if tokio::net::UnixStream::connect(path).await.is_ok() {
                return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another server listens there"));
            }
            std::fs::remove_file(path)?;
        }
        UnixListener::bind(path).map(Listener::Unix)
    }

    /// The address with which clients connect.
    pub fn address(&self) -> String {
        match self {
            Listener::Tcp(listener) => {
                listener.local_addr().map_or_else(|error| error.to_string(), |address| format!("http://{address}"))
            }
            #[cfg(unix)]
            Listener::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname()).map(Path::display);
                path.map_or_else(|| "unix:".to_owned(), |path| format!("unix:{path}"))
            }
        }
    }

    /// Answers requests until `stop` is ready; then no connection is accepted, and running requests have the time `drain`. A client may take
    /// `head_timeout` for the head of a request, and a connection may be idle for as long. If the descriptors run out, idle connections are closed.
    pub async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()>,
        (head_timeout, drain): (Duration, Duration),
    ) {
        // A change tells all connections to close after the request that they work on. Each has a receiver.
        let (close, _) = watch::channel(());
        let (most, mut reported) = (most_connections(), None);
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted: std::io::Result<Box<dyn Stream>> = tokio::select! {
                accepted = self.accept(), if close.receiver_count() < most => accepted,
                () = std::future::ready(()), if close.receiver_count() >= most => {
                    Err(std::io::Error::other(format!("{most} connections are open, which is what the limit of open files allows")))
                }
                () = &mut stop => break,
            };
            match accepted {
                Ok(stream) => {
                    let service = TowerToHyperService::new(router.clone());
                    let mut builder = hyper::server::conn::http1::Builder::new();
                    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout);
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    let mut closing = close.subscribe();
                    tokio::spawn(async move {
                        let mut connection = std::pin::pin!(connection);
                        tokio::select! {
                            // The client closed the connection, or sent something else than HTTP.
                            _ = connection.as_mut() => {}
                            _ = closing.changed() => {
                                connection.as_mut().graceful_shutdown();
                                let _ = connection.await;
                            }
                        }
                    });
                }
                Err(error) if is_of_connection(&error) => tracing::debug!(%error, "a client gave up"),
                Err(error) => {
                    let now = tokio::time::Instant::now();
                    if reported.is_none_or(|last| now.duration_since(last) > REPORT_INTERVAL) {
                        reported = Some(now);
                        tracing::warn!(
                            %error,
                            open = close.receiver_count(),
                            "no room for another connection: idle ones are closed, new ones wait; a higher limit of open files (ulimit -n, LimitNOFILE) \
                             gives more room"
                        );
                    }
                    close.send_replace(());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(self);
        close.send_replace(());
        if tokio::time::timeout(drain, close.closed()).await.is_err() {
            tracing::warn!(seconds = drain.as_secs_f64(), "requests were not finished in time; they are cut off");
        }
    }

    async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are sent at once. It fails if the client has gone.
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Listener::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// Whether an error concerns only the connection that was to be accepted.
fn is_of_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Raises the number of file descriptors of this process, and says how many connections fit.
#[cfg(unix)]
fn most_connections() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |most| most.min(DESCRIPTORS));
    let Some(now) = limit.current else { return usize::MAX };
    // It may fail, as on macOS, whose limit is lower than what it says.
    let is_raised = wanted > now && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).is_ok();
    let number = if is_raised { wanted } else { now };
    // With a very low limit, most of it is for connections.
    usize::try_from(number.saturating_sub(RESERVED).max(number / 4)).unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
fn most_connections() -> usize {
    usize::MAX
}

/// A connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}
