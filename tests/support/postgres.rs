//! A private PostgreSQL for tests, from the machine's own binaries, with a socket in a folder of its
//! own and no port. It ends with the test's process, also when that is killed.
//!
//! Whoever wants it includes this file; it uses nothing but the standard library and `tempfile`.
//! [`Server::start`] says what is missing where there is none.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test that includes this uses a part of it"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long to wait for the server. A guard only: machines are slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where distributions keep the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user of the databases.
const USER: &str = "tether";

/// Runs the server and ends it, at once, when nobody holds the other end of its standard input.
/// `stop` ends it the same way and waits, `start` starts it again.
const KEEPER: &str = r#"
folder=$1; bin=$2
start() {
    "$bin/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= \
        -c max_connections=200 >>"$folder/log" 2>&1 </dev/null &
    server=$!
    echo "$server"
}
start
while read -r word; do
    case $word in
        stop) kill -QUIT "$server" 2>/dev/null; wait "$server"; echo stopped ;;
        start) start ;;
    esac
done
kill -QUIT "$server" 2>/dev/null
wait "$server"
rm -rf "$folder"
"#;

/// A server that runs.
pub struct Server {
    folder: PathBuf,
    bin: PathBuf,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    child: Child,
    orders: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
}

impl Server {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// What the machine lacks.
    pub fn start() -> Result<Self, String> {
        let bin = programs().ok_or_else(|| format!("no PostgreSQL in {VERSIONS} or the path"))?;
        let as_user = unprivileged()?;
        let folder = tempfile::Builder::new()
            .prefix("tether-pg-")
            .tempdir()
            .expect("a folder");
        // The keeper removes it, also when this process is killed.
        let folder = folder.keep();
        let run = |program: &str| {
            let mut command = Command::new(program);
            command.current_dir(&folder).stdin(Stdio::null());
            if let Some((uid, gid)) = as_user {
                command.uid(uid).gid(gid);
            }
            command
        };
        if let Some((uid, gid)) = as_user {
            chown(&folder, Some(uid), Some(gid)).expect("given to the server's user");
        }
        let made = run(&bin.join("initdb").to_string_lossy())
            .args(["-D", "data", "-U", USER, "--auth=trust", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C"])
            .output()
            .expect("initdb runs");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut child = run("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&folder)
            .arg(&bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let keeper = Keeper {
            orders: child.stdin.take(),
            said: BufReader::new(child.stdout.take().expect("piped")),
            child,
        };
        let server = Self {
            folder,
            bin,
            keeper: Mutex::new(keeper),
        };
        server.hear();
        server.wait();
        Ok(server)
    }

    /// Where its socket is.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(".s.PGSQL.5432")
    }

    /// The URL of a database of it.
    pub fn url(&self, database: &str) -> String {
        url_in(&self.folder, database)
    }

    /// Makes an empty database and gives its URL.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// Runs SQL with the client that comes with the server.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let output = Command::new(self.bin.join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", USER, "-h"])
            .arg(&self.folder)
            .args(["-d", database, "-c", sql])
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Ends the server at once, as a crash would: no transaction finishes, nothing is written back.
    pub fn stop_at_once(&self) {
        self.order("stop");
        assert_eq!(self.hear(), "stopped");
    }

    /// Starts it again, and waits until it has recovered.
    pub fn start_again(&self) {
        self.order("start");
        self.hear();
        self.wait();
    }

    fn order(&self, word: &str) {
        let mut keeper = self.keeper.lock().unwrap();
        let orders = keeper.orders.as_mut().expect("it runs");
        writeln!(orders, "{word}").expect("the keeper reads");
    }

    fn hear(&self) -> String {
        let mut line = String::new();
        let mut keeper = self.keeper.lock().unwrap();
        keeper.said.read_line(&mut line).expect("the keeper speaks");
        line.trim().to_owned()
    }

    fn wait(&self) {
        let begin = Instant::now();
        let is_ready = || {
            Command::new(self.bin.join("pg_isready"))
                .arg("-q")
                .arg("-h")
                .arg(&self.folder)
                .status()
                .is_ok_and(|status| status.success())
        };
        while !is_ready() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "no server: {}", log());
            // Polling for an event of another process; nothing depends on this time.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap();
        keeper.orders = None;
        let _ = keeper.child.wait();
    }
}

/// The URL of a database whose socket lies in a folder.
pub fn url_in(folder: &Path, database: &str) -> String {
    format!("host={} user={USER} dbname={database}", folder.display())
}

/// The folder of the newest version's programs.
fn programs() -> Option<PathBuf> {
    let number = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let mut versions: Vec<PathBuf> = fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let elsewhere = std::env::split_paths(&path);
    (versions.iter().map(|version| version.join("bin")))
        .chain(elsewhere)
        .find(|bin| {
            ["initdb", "postgres", "psql"]
                .iter()
                .all(|it| bin.join(it).is_file())
        })
}

/// The user that the server runs as, where this is root: PostgreSQL refuses to be root.
fn unprivileged() -> Result<Option<(u32, u32)>, String> {
    let own = fs::metadata("/proc/self").map_or(1, |it| it.uid());
    if own != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |name: &str| {
        let line = users
            .lines()
            .find(|it| it.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let user = find("postgres").or_else(|| find("nobody"));
    user.map(Some)
        .ok_or_else(|| "no user `postgres` or `nobody` to run PostgreSQL as".to_owned())
}
