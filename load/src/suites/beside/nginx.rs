//! Nginx: a real one as a process of its own, to be measured beside weir.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::client::{Client, ClientError};
use crate::target::cpu_time;

/// How long it may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How many ports are tried when somebody else is always faster.
const PORTS_TRIED_MAX: usize = 5;
/// Connections of each worker, those to the provider included.
const WORKER_CONNECTIONS: usize = 20_000;
const CONFIG_FILE: &str = "nginx.conf";

/// What it is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::suites) enum Site {
    /// Passes everything on to a provider, and its answers back as they come.
    Proxy {
        /// The provider.
        to: SocketAddr,
        /// Connections to it that each worker keeps open.
        keepalive: usize,
    },
    /// Gives everybody who listens what is published, by nchan.
    Nchan,
}

/// Where a site of [`Site::Nchan`] is published to.
pub(in crate::suites) const PUBLISH: &str = "/publish";
/// Where it is listened to.
pub(in crate::suites) const LISTEN: &str = "/listen";
/// The file of nchan, in the folder of nginx's modules.
const NCHAN: &str = "ngx_nchan_module.so";
/// Messages that nchan keeps for those who come late.
const NCHAN_KEPT: usize = 100;

/// Why there is none to measure.
#[derive(Debug)]
pub(in crate::suites) enum Unavailable {
    /// There is no such program.
    Missing(PathBuf),
    /// It has no nchan, which should be this file.
    NoNchan(PathBuf),
    /// It does not start; with what it said.
    Failed(String),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::Missing(program) => {
                write!(f, "there is no {} (Debian: nginx-light); --nginx names another one", program.display())
            }
            Unavailable::NoNchan(module) => {
                write!(f, "there is no {} (Debian: libnginx-mod-nchan)", module.display())
            }
            Unavailable::Failed(said) => write!(f, "it did not start: {said}"),
        }
    }
}

impl From<io::Error> for Unavailable {
    fn from(error: io::Error) -> Self {
        Unavailable::Failed(error.to_string())
    }
}

/// A running nginx. Dropping it asks it to stop.
#[derive(Debug)]
pub(in crate::suites) struct Nginx {
    /// Not killed on drop: its workers would be left behind.
    _master: Child,
    _directory: TempDir,
    pid: u32,
    address: SocketAddr,
}

impl Nginx {
    /// Starts one on a free port of the loopback interface and waits until it listens.
    pub(in crate::suites) async fn start(program: &Path, site: Site) -> Result<Self, Unavailable> {
        let module = match site {
            Site::Proxy { .. } => None,
            Site::Nchan => Some(nchan(program).await?),
        };
        let module = module.as_deref();
        for _ in 1..PORTS_TRIED_MAX {
            match Self::start_at(program, module, site, free_address()?).await {
                Err(Unavailable::Failed(said)) if is_taken(&said) => {}
                other => return other,
            }
        }
        Self::start_at(program, module, site, free_address()?).await
    }

    async fn start_at(
        program: &Path,
        module: Option<&Path>,
        site: Site,
        address: SocketAddr,
    ) -> Result<Self, Unavailable> {
        let directory = tempfile::Builder::new().prefix("weir-load-nginx-").tempdir()?;
        let module = module.map(|module| format!("load_module {};\n", module.display())).unwrap_or_default();
        let text = module + &config(directory.path(), address, site, geteuid().is_root());
        fs::write(directory.path().join(CONFIG_FILE), text)?;
        let mut command = Command::new(program);
        command.arg("-p").arg(directory.path()).args(["-e", "stderr", "-c", CONFIG_FILE]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut master = command.spawn().map_err(|error| missing(program, error))?;
        let pid = master.id().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let stderr = master.stderr.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        // From here on, dropping it stops the process.
        let nginx = Self { _master: master, _directory: directory, pid, address };
        match timeout(START_TIMEOUT, listens(stderr)).await {
            Ok(Ok(())) => Ok(nginx),
            Ok(Err(said)) => Err(Unavailable::Failed(said)),
            Err(_) => Err(Unavailable::Failed("it does not say that it listens".to_owned())),
        }
    }

    /// A client of it.
    pub(in crate::suites) fn client(&self, prefix: &str) -> Result<Client, ClientError> {
        Client::new(&format!("http://{}{prefix}", self.address))
    }

    /// How many processes answer requests.
    pub(in crate::suites) fn workers(&self) -> io::Result<usize> {
        Ok(children(self.pid)?.len())
    }

    /// The processor time that all its processes have used.
    pub(in crate::suites) fn cpu_time(&self) -> io::Result<Duration> {
        let workers = children(self.pid)?;
        workers.into_iter().try_fold(cpu_time(self.pid)?, |sum, worker| Ok(sum + cpu_time(worker)?))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It fails on one that has ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

fn missing(program: &Path, error: io::Error) -> Unavailable {
    match error.kind() {
        io::ErrorKind::NotFound => Unavailable::Missing(program.to_owned()),
        _ => error.into(),
    }
}

/// The file of nchan where this nginx has its modules.
async fn nchan(program: &Path) -> Result<PathBuf, Unavailable> {
    let built = Command::new(program).arg("-V").stdin(Stdio::null()).output().await;
    let built = built.map_err(|error| missing(program, error))?;
    let module = modules(&String::from_utf8_lossy(&built.stderr)).join(NCHAN);
    if module.exists() { Ok(module) } else { Err(Unavailable::NoNchan(module)) }
}

/// The folder of its modules, by what it says about how it was built.
fn modules(built: &str) -> PathBuf {
    let options = built.split_whitespace();
    let folder = options.filter_map(|option| option.strip_prefix("--modules-path=")).next();
    folder.unwrap_or("/usr/lib/nginx/modules").into()
}

/// A port that nobody has at this moment. Somebody may have it when it is wanted, so that is to be expected.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn is_taken(said: &str) -> bool {
    said.contains("Address already in use")
}

/// Reads until it says that its workers start, which it does after it has opened its sockets. It must be read on after
/// that, lest it waits for a reader.
async fn listens(stderr: ChildStderr) -> Result<(), String> {
    let (mut lines, mut said) = (BufReader::new(stderr).lines(), String::new());
    while let Ok(Some(line)) = lines.next_line().await {
        if line.contains("start worker processes") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(());
        }
        if !line.contains("[notice]") {
            said.push_str(&line);
            said.push('\n');
        }
    }
    Err(said)
}

/// The processes that a process has started and that still run.
fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(child) = entry?.file_name().to_string_lossy().parse() else { continue };
        // One that has ended since the folder was read is nobody's child.
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        if parent(&stat) == Some(pid) {
            found.push(child);
        }
    }
    Ok(found)
}

/// The 4th field, counted from behind the name, which may contain anything.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The whole configuration file: everything that it writes is in `directory`.
fn config(directory: &Path, address: SocketAddr, site: Site, is_root: bool) -> String {
    let at = directory.display();
    // The workers of root are somebody else, who may not look into the directory.
    let user = if is_root { "user root;\n" } else { "" };
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders: String = folders.map(|kind| format!("  {kind}_temp_path {at}/{kind};\n")).concat();
    let server = site.server(address);
    format!(
        "{user}daemon off;\nworker_processes auto;\npid {at}/pid;\nerror_log stderr notice;\n\
         events {{ worker_connections {WORKER_CONNECTIONS}; }}\n\
         http {{\n  access_log off;\n  tcp_nodelay on;\n  keepalive_requests 1000000;\n{folders}{server}}}\n"
    )
}

impl Site {
    /// Its lines of the context `http`.
    fn server(self, address: SocketAddr) -> String {
        match self {
            Site::Proxy { to, keepalive } => format!(
                "  upstream provider {{\n    server {to};\n    keepalive {keepalive};\n    keepalive_requests 1000000;\n  }}\n  \
                 server {{\n    listen {address} backlog=4096;\n    location / {{\n      proxy_pass http://provider;\n      \
                 proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_buffering off;\n      \
                 proxy_read_timeout 600s;\n    }}\n  }}\n"
            ),
            Site::Nchan => format!(
                "  server {{\n    listen {address} backlog=4096;\n    nchan_channel_id answer;\n    \
                 nchan_message_buffer_length {NCHAN_KEPT};\n    nchan_subscriber_first_message newest;\n    \
                 location = {PUBLISH} {{ nchan_publisher; }}\n    \
                 location = {LISTEN} {{ nchan_subscriber eventsource; }}\n  }}\n"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const MOCK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

    fn proxy() -> Site {
        Site::Proxy { to: MOCK, keepalive: 256 }
    }

    #[test]
    fn the_file_passes_everything_on_at_once_over_connections_that_are_kept() {
        let config = config(Path::new("/here"), "127.0.0.1:7".parse().unwrap(), proxy(), false);

        let lines: Vec<_> = config.lines().map(str::trim).collect();
        for line in [
            "worker_processes auto;",
            "access_log off;",
            "tcp_nodelay on;",
            "listen 127.0.0.1:7 backlog=4096;",
            "server 127.0.0.1:9;",
            "keepalive 256;",
            "proxy_http_version 1.1;",
            "proxy_set_header Connection \"\";",
            "proxy_buffering off;",
        ] {
            assert!(lines.contains(&line), "{line} is missing in\n{config}");
        }
        assert!(!config.contains("user "), "{config}");
    }

    #[test]
    fn everything_that_it_writes_is_in_its_directory() {
        let config = config(Path::new("/here"), MOCK, proxy(), true);

        assert!(config.starts_with("user root;\n"));
        let written = config.lines().filter(|line| line.contains("_path ") || line.starts_with("pid "));
        assert_eq!(written.clone().count(), 6);
        written.for_each(|line| assert!(line.contains(" /here/"), "{line}"));
    }

    #[test]
    fn nchan_is_looked_for_where_nginx_has_its_modules() {
        let built =
            "nginx version: nginx/1.22.1\nconfigure arguments: --prefix=/x --modules-path=/a/modules --with-y\n";

        assert_eq!(modules(built), Path::new("/a/modules"));
        assert_eq!(modules("nginx version: nginx/1.22.1"), Path::new("/usr/lib/nginx/modules"));
    }

    #[tokio::test]
    async fn an_nginx_without_nchan_names_the_file_that_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("nginx");
        fs::write(&program, "#!/bin/sh\necho 'arguments: --modules-path=/no/such' >&2\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();

        let why = Nginx::start(&program, Site::Nchan).await.unwrap_err().to_string();

        assert_eq!(why, "there is no /no/such/ngx_nchan_module.so (Debian: libnginx-mod-nchan)");
    }

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("42 (a) 7 (b) S 17 42 42 0"), Some(17));
        assert_eq!(parent("42 (a"), None);
    }

    #[tokio::test]
    async fn one_that_is_missing_is_named_with_what_helps() {
        let why = Nginx::start(Path::new("/no/such/nginx"), proxy()).await.unwrap_err().to_string();

        assert!(why.contains("/no/such/nginx") && why.contains("nginx-light") && why.contains("--nginx"), "{why}");
    }

    #[tokio::test]
    async fn one_that_ends_at_once_is_no_nginx() {
        let why = Nginx::start(Path::new("false"), proxy()).await.unwrap_err();

        assert!(matches!(why, Unavailable::Failed(_)), "{why}");
    }
}
