//! Client: a small HTTP/1.1 client that looks closely: event streams with the instant and the read of every event,
//! bodies that were cut told from bodies that ended, one connection a request. Over TCP, or TLS on it.

mod connection;
mod events;
mod stream;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use connection::{Connection, Head, Request};
pub use events::{Arrived, Events, openai_text_of, text_of};
pub use stream::Stream;

use stream::Tls;

/// A server, and how to ask it.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    prefix: String,
    headers: Vec<(String, String)>,
    tls: Option<Tls>,
    wait_max: Option<Duration>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Bytes,
}

impl Response {
    /// Its status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of the error that it is, if it is one.
    pub fn error_code(&self) -> Option<String> {
        self.json()["error"]["code"].as_str().map(str::to_owned)
    }
}

/// Why there is no answer, or no whole one.
#[derive(Debug)]
pub enum ClientError {
    /// The URL is not one of `http://` or `https://`.
    Url(String),
    /// The file of certificates cannot be used.
    CaFile(PathBuf, String),
    /// No connection.
    Connect(io::Error),
    /// No agreement on TLS.
    Tls(io::Error),
    /// The connection failed.
    Io(io::Error),
    /// The connection was closed before an answer.
    Closed,
    /// The connection was closed in the middle of the answer.
    Cut,
    /// What came is not HTTP.
    NotHttp,
    /// Nothing came for as long as the client waits.
    Late(Duration),
    /// A body or a line is longer than anybody should send.
    TooLong,
    /// An answer came, but not the one that was asked for.
    Refused(Box<Response>),
}

impl ClientError {
    /// The answer that came instead, if one did.
    pub fn refusal(&self) -> Option<&Response> {
        match self {
            ClientError::Refused(response) => Some(response),
            _ => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Url(url) => write!(f, "{url:?} is not a URL of the form http://host:port or https://host"),
            ClientError::CaFile(path, why) => write!(f, "--ca-file {}: {why}", path.display()),
            ClientError::Connect(error) => write!(f, "cannot connect: {error}"),
            ClientError::Tls(error) => write!(f, "the TLS handshake failed: {error} (--ca-file names whom to trust)"),
            ClientError::Io(error) => write!(f, "the connection failed: {error}"),
            ClientError::Closed => f.write_str("the connection was closed without an answer"),
            ClientError::Cut => f.write_str("the answer was cut"),
            ClientError::NotHttp => f.write_str("the answer is not HTTP"),
            ClientError::Late(wait_max) => {
                write!(f, "no answer, or no more of it, within {} ms", wait_max.as_millis())
            }
            ClientError::TooLong => f.write_str("the answer is too long"),
            ClientError::Refused(response) => {
                let body = String::from_utf8_lossy(&response.body);
                let begin: String = body.chars().take(300).collect();
                write!(f, "answered {}: {begin}", response.status())
            }
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        ClientError::Io(error)
    }
}

impl Client {
    /// A client of the server at `http://host:port/prefix` or `https://host:port/prefix`. With `https` the public roots
    /// are trusted.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let no_url = || ClientError::Url(url.to_owned());
        let (rest, port) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (rest, 80),
            (None, Some(rest)) => (rest, 443),
            (None, None) => return Err(no_url()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The colons within the brackets of an address belong to it.
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let host = if has_port { authority.rsplit_once(':').map_or(authority, |(host, _)| host) } else { authority };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(no_url());
        }
        let tls = if port == 443 { Some(Tls::new(host).ok_or_else(no_url)?) } else { None };
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        Ok(Self { authority, prefix, headers: Vec::new(), tls, wait_max: None })
    }

    /// The same, which trusts the certificates of this PEM file, too. Without `https` there is nobody to trust.
    pub fn trusting(mut self, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        if let (Some(tls), Some(ca_file)) = (&mut self.tls, ca_file) {
            tls.trust(ca_file)?;
        }
        Ok(self)
    }

    /// The same with a header that every request carries.
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same, which waits this long for a connection, for a whole answer, and for a stream's head and next bytes.
    pub fn within(mut self, wait_max: Duration) -> Self {
        self.wait_max = Some(wait_max);
        self
    }

    /// The server's name and port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        in_time(self.wait_max, async {
            let stream = TcpStream::connect(&self.authority).await.map_err(ClientError::Connect)?;
            stream.set_nodelay(true)?;
            let stream = match &self.tls {
                Some(tls) => tls.connect(stream).await?,
                None => Stream::Tcp(stream),
            };
            Ok(Connection::new(stream, self.authority.clone()).within(self.wait_max))
        })
        .await
    }

    /// Sends a request on a new connection and reads the whole answer, whatever its status.
    pub async fn send(&self, request: Request) -> Result<Response, ClientError> {
        let request = self.complete(request);
        in_time(self.wait_max, async {
            let mut connection = self.connect().await?;
            let head = connection.send(&request).await?;
            connection.whole(head).await
        })
        .await
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Response, ClientError> {
        self.send(Request::get(path)).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Response, ClientError> {
        self.send(Request::post(path, body)).await
    }

    /// Opens an event stream on a new connection.
    pub async fn open(&self, request: Request) -> Result<Events, ClientError> {
        let request = self.complete(request);
        Events::open(self.connect().await?, &request).await
    }

    /// Adds the prefix and the headers that every request has, for connections of one's own.
    pub fn complete(&self, request: Request) -> Request {
        let headers = self.headers.iter().cloned();
        headers.fold(request.with_prefix(&self.prefix), |request, (name, value)| request.header(name, value))
    }
}

/// What this comes to, or [`ClientError::Late`] if it takes longer than it may.
async fn in_time<T>(
    wait_max: Option<Duration>,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match wait_max {
        Some(wait_max) => timeout(wait_max, work).await.unwrap_or(Err(ClientError::Late(wait_max))),
        None => work.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[test]
    fn a_url_is_a_server_and_a_prefix() {
        let parts = |url| Client::new(url).map(|client| (client.authority, client.prefix)).ok();
        let expected = |authority: &str, prefix: &str| Some((authority.to_owned(), prefix.to_owned()));

        assert_eq!(parts("http://127.0.0.1:8000"), expected("127.0.0.1:8000", ""));
        assert_eq!(parts("http://127.0.0.1:8000/"), expected("127.0.0.1:8000", ""));
        assert_eq!(parts("http://localhost/v1/"), expected("localhost:80", "/v1"));
        assert_eq!(parts("https://weir.example/v1"), expected("weir.example:443", "/v1"));
        assert_eq!(parts("https://weir.example:8443"), expected("weir.example:8443", ""));
        assert_eq!(parts("http://[::1]:8000"), expected("[::1]:8000", ""));
        assert_eq!(parts("https://[::1]"), expected("[::1]:443", ""));
        for url in ["ftp://localhost", "localhost:1", "http://", "http:///v1", "https://", "https://:1", "https://a b"]
        {
            assert_eq!(parts(url), None, "{url}");
        }
    }

    const WAIT_MAX: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_waited_for_no_longer_than_was_asked_for() {
        let (_open, silent) = tokio::io::duplex(1024);
        let mut connection = Connection::new(silent, "x").within(Some(WAIT_MAX));
        let start = Instant::now();

        let silence = connection.send(&Request::get("/")).await;

        assert!(matches!(silence, Err(ClientError::Late(WAIT_MAX))), "{silence:?}");
        assert_eq!(start.elapsed(), WAIT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_last_as_long_as_it_is_not_silent_and_a_whole_answer_may_not() {
        let read = async |is_stream: bool| {
            let (near, mut far) = tokio::io::duplex(1024);
            let mut connection = Connection::new(near, "x").within(Some(WAIT_MAX));
            let drips = async {
                far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                for _ in 0..4 {
                    sleep(WAIT_MAX * 2 / 3).await;
                    // Nobody may listen any more.
                    let _ = far.write_all(b"x").await;
                }
                std::future::pending::<()>().await;
            };
            let reads = async {
                let head = connection.read_head(false).await.unwrap();
                if !is_stream {
                    return (0, connection.whole(head).await.map(drop));
                }
                let mut pieces = 0;
                loop {
                    match connection.next_piece().await {
                        Ok(_) => pieces += 1,
                        Err(error) => return (pieces, Err(error)),
                    }
                }
            };
            tokio::select! { read = reads => read, () = drips => unreachable!("it never ends") }
        };

        let (start, streamed) = (Instant::now(), read(true).await);
        assert!(matches!(streamed, (4, Err(ClientError::Late(_)))), "{streamed:?}");
        assert_eq!(start.elapsed(), WAIT_MAX * 8 / 3 + WAIT_MAX);
        let (start, whole) = (Instant::now(), read(false).await);
        assert!(matches!(whole, (0, Err(ClientError::Late(_)))), "{whole:?}");
        assert_eq!(start.elapsed(), WAIT_MAX);
    }

    #[tokio::test]
    async fn an_answer_that_is_no_http_is_told_from_one_that_is_cut() {
        let answered = async |bytes: &[u8]| {
            let (near, mut far) = tokio::io::duplex(1024);
            far.write_all(bytes).await.unwrap();
            let mut connection = Connection::new(near, "x");
            connection.write(&Request::get("/")).await.unwrap();
            drop(far);
            let head = connection.read_head(false).await?;
            connection.whole(head).await
        };

        assert!(matches!(answered(b"").await, Err(ClientError::Closed)));
        assert!(matches!(answered(b"SSH-2.0\r\n").await, Err(ClientError::NotHttp)));
        assert!(matches!(answered(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi").await, Err(ClientError::Cut)));
        let whole = answered(b"HTTP/1.1 200 OK\r\n\r\nhi").await.unwrap();
        assert_eq!(&whole.body[..], b"hi");
    }
}
