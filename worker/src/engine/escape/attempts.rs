//! The attempts: what an engine that was taken over would do.

use super::{Outcome, Trial};
use crate::sandbox::Protection;
use rustix::process::getppid;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One attempt.
pub(crate) struct Attempt {
    /// Its name.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) what: &'static str,
    /// What has to stop it.
    pub(crate) protection: Protection,
    run: fn(&Trial, &Path) -> io::Result<String>,
}

/// Most processes, threads and files of an attempt that nothing stops.
const MOST_PROCESSES: usize = 32;
const MOST_THREADS: usize = 4_096;
const MOST_FILES: usize = 65_536;
/// How long what was taken is held, so that whoever watches has time to see it.
const HELD: Duration = Duration::from_secs(5);
/// Bytes that are taken at once.
const PIECE: usize = 32 << 20;

macro_rules! attempts {
    ($($name:literal, $what:literal, $protection:ident, $run:expr;)*) => {
        &[$(Attempt { name: $name, what: $what, protection: Protection::$protection, run: $run }),*]
    };
}

/// All of them.
pub(crate) const ATTEMPTS: &[Attempt] = attempts! {
    "tcp", "connect to a TCP listener on loopback", Network, |it, _| {
        TcpStream::connect(&it.tcp).map(|_| "connected".to_owned())
    };
    "udp", "send a UDP datagram", Network, |it, _| {
        UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", &it.udp).map(|_| "sent".to_owned())
    };
    "abstract-socket", "connect to an abstract Unix socket", Network, |it, _| abstract_socket(&it.abstract_socket);
    "path-socket", "connect to a Unix socket at a path", Network, |it, _| {
        UnixStream::connect(&it.socket).map(|_| "connected".to_owned())
    };
    "read-passwd", "read /etc/passwd", Files, |_, _| read(Path::new("/etc/passwd"));
    "read-key", "read the worker's key file", Files, |it, _| read(&it.key);
    "read-beside", "read a file beside the model's", Files, |it, _| read(&it.beside);
    "follow-link", "follow a symbolic link out of the model's folder", Files, |_, root| read(&root.join("out/secret"));
    "write-model", "write into the model's folder", Files, |_, root| write(&root.join("new"));
    "change-model", "change a file of the model", Files, |_, root| {
        OpenOptions::new().write(true).open(root.join("weights")).map(|_| "opened for writing".to_owned())
    };
    "write-tmp", "write into /tmp", Files, |_, _| write(Path::new("/tmp/tether-escape"));
    "read-parent", "read the environment of the worker's process", Files, |_, _| read(&parent("environ")?);
    "parent-memory", "read the memory of the worker's process", Files, |_, _| {
        File::open(parent("mem")?).map(|_| "opened".to_owned())
    };
    "terminal", "open the worker's terminal", Files, |_, _| {
        OpenOptions::new().write(true).open("/dev/tty").map(|_| "opened for writing".to_owned())
    };
    "dev-mem", "open /dev/mem", Files, |_, _| File::open("/dev/mem").map(|_| "opened".to_owned());
    "block-device", "open a disk", Files, |it, _| {
        if it.block.as_os_str().is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "this machine has none"));
        }
        File::open(&it.block).map(|_| "opened".to_owned())
    };
    "fork", "start another process", Processes, |_, _| {
        let mut child = sleeper().spawn()?;
        end(&mut child);
        Ok("started".to_owned())
    };
    "fork-bomb", "start processes until it is stopped", Processes, |_, _| fork_bomb();
    "exec", "become another program (/bin/sh)", Processes, |_, _| {
        Err(Command::new("/bin/sh").args(["-c", "exit 86"]).exec())
    };
    "kill-parent", "send the worker's process a signal", Processes, |_, _| {
        let parent = getppid().ok_or(io::ErrorKind::NotFound)?;
        rustix::process::test_kill_process(parent)?;
        Ok("it could".to_owned())
    };
    "pidfd-parent", "hold the worker's process by a pidfd, to signal it", Processes, |_, _| {
        pidfd_parent()
    };
    "signal-by-descriptor", "have the kernel send signals for a descriptor", Processes, |_, _| {
        signal_by_descriptor()
    };
    "trace-parent", "trace the worker's process", Processes, |_, _| trace_parent();
    "thread-bomb", "start threads until it is stopped", Limits, |_, _| thread_bomb();
    "open-files", "open files until it is stopped", Limits, |_, root| open_files(root);
    "memory-bomb", "fill memory until it is stopped", Memory, |it, _| memory_bomb(it.most_bytes);
    "memory-leak", "fill memory slowly", Memory, |it, _| memory_leak(it.most_bytes);
    "memory-file", "fill memory through a file without a name", Memory, |it, _| memory_file(it.most_bytes);
    "setuid", "become another user", Privileges, |_, _| setuid();
    "mount", "mount a file system", Privileges, |_, root| mount(root);
    "unshare", "make namespaces of its own", Privileges, |_, _| unshare();
    "chroot", "change its root", Privileges, |_, _| {
        rustix::process::chroot("/")?;
        Ok("changed".to_owned())
    };
    "priority", "go before everybody else", Limits, |_, _| {
        rustix::process::setpriority_process(None, -20)?;
        Ok("set".to_owned())
    };
};

/// Further ones, which are not to be stopped.
pub(crate) const OPEN_DEVICE: &str = "open-device";

/// Tries.
pub(crate) fn attempt(trial: &Trial, root: &Path) -> Outcome {
    let tried = if trial.attempt == OPEN_DEVICE {
        device(&trial.device)
    } else {
        match ATTEMPTS.iter().find(|it| it.name == trial.attempt) {
            Some(attempt) => (attempt.run)(trial, root),
            None => Err(io::Error::other("there is no such attempt")),
        }
    };
    match tried {
        Ok(words) => Outcome::Succeeded(words),
        Err(error) => Outcome::Refused {
            errno: error.raw_os_error(),
            words: error.to_string(),
        },
    }
}

fn read(path: &Path) -> io::Result<String> {
    fs::read(path).map(|bytes| format!("{} bytes", bytes.len()))
}

fn write(path: &Path) -> io::Result<String> {
    fs::write(path, "x")?;
    fs::remove_file(path)?;
    Ok("written".to_owned())
}

fn device(path: &Path) -> io::Result<String> {
    let mut device = OpenOptions::new().read(true).write(true).open(path)?;
    device.read_exact(&mut [0; 16])?;
    device.write_all(&[0; 16])?;
    Ok("read and written".to_owned())
}

/// A file of `/proc` about the process that started this one.
fn parent(file: &str) -> io::Result<std::path::PathBuf> {
    let parent = getppid().ok_or(io::ErrorKind::NotFound)?;
    Ok(format!("/proc/{}/{file}", parent.as_raw_nonzero()).into())
}

#[cfg(target_os = "linux")]
fn abstract_socket(name: &str) -> io::Result<String> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address).map(|_| "connected".to_owned())
}

#[cfg(not(target_os = "linux"))]
fn abstract_socket(_: &str) -> io::Result<String> {
    Err(io::ErrorKind::Unsupported.into())
}

fn sleeper() -> Command {
    let mut command = Command::new("/bin/sleep");
    let command_io = || Stdio::null();
    command
        .arg("10")
        .stdin(command_io())
        .stdout(command_io())
        .stderr(command_io());
    command
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn fork_bomb() -> io::Result<String> {
    let mut children = Vec::new();
    let mut stopped = None;
    while children.len() < MOST_PROCESSES && stopped.is_none() {
        match sleeper().spawn() {
            Ok(child) => children.push(child),
            Err(error) => stopped = Some(error),
        }
    }
    children.iter_mut().for_each(end);
    match stopped {
        Some(error) => Err(error),
        None => Ok(format!("{} processes", children.len())),
    }
}

#[cfg(target_os = "linux")]
fn pidfd_parent() -> io::Result<String> {
    let parent = getppid().ok_or(io::ErrorKind::NotFound)?;
    rustix::process::pidfd_open(parent, rustix::process::PidfdFlags::empty())?;
    Ok("opened".to_owned())
}

/// The first of the steps, and harmless alone: the next would name the worker as who gets them.
#[cfg(target_os = "linux")]
fn signal_by_descriptor() -> io::Result<String> {
    let (ours, _theirs) = UnixStream::pair()?;
    rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::ASYNC)?;
    Ok("it would".to_owned())
}

fn thread_bomb() -> io::Result<String> {
    let begin = Instant::now();
    let until = Duration::from_secs(2) + HELD;
    for _ in 0..MOST_THREADS {
        std::thread::Builder::new()
            .stack_size(16 * 1_024)
            .spawn(move || std::thread::sleep(until.saturating_sub(begin.elapsed())))?;
    }
    std::thread::sleep(HELD);
    Ok(format!("{MOST_THREADS} threads"))
}

fn open_files(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    while files.len() < MOST_FILES {
        files.push(File::open(root.join("weights"))?);
    }
    Ok(format!("{MOST_FILES} files"))
}

fn fill(most_bytes: u64, mut between: impl FnMut()) -> io::Result<String> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    while (pieces.len() * PIECE) as u64 <= most_bytes {
        let mut piece: Vec<u8> = Vec::new();
        piece.try_reserve_exact(PIECE).map_err(|_| {
            // The allocator does not say, and this is what it was told.
            io::Error::from_raw_os_error(rustix::io::Errno::NOMEM.raw_os_error())
        })?;
        piece.resize(PIECE, 1);
        pieces.push(piece);
        between();
    }
    std::thread::sleep(HELD);
    Ok(format!("{} MiB", (pieces.len() * PIECE) >> 20))
}

fn memory_bomb(most_bytes: u64) -> io::Result<String> {
    fill(most_bytes, || {})
}

fn memory_leak(most_bytes: u64) -> io::Result<String> {
    fill(most_bytes, || {
        std::thread::sleep(Duration::from_millis(150))
    })
}

#[cfg(target_os = "linux")]
fn memory_file(most_bytes: u64) -> io::Result<String> {
    let file = rustix::fs::memfd_create("escape", rustix::fs::MemfdFlags::empty())?;
    let mut file = File::from(file);
    let piece = vec![1; PIECE];
    for _ in 0..most_bytes.div_ceil(PIECE as u64) {
        file.write_all(&piece)?;
    }
    Ok(format!("{} MiB", most_bytes >> 20))
}

#[cfg(target_os = "linux")]
fn setuid() -> io::Result<String> {
    rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(12_345))?;
    Ok("became user 12345".to_owned())
}

#[cfg(target_os = "linux")]
fn mount(root: &Path) -> io::Result<String> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none = None::<&str>;
    mount(Some("escape"), root, Some("tmpfs"), MsFlags::empty(), none)?;
    umount2(root, MntFlags::MNT_DETACH)?;
    Ok("mounted".to_owned())
}

#[cfg(target_os = "linux")]
fn unshare() -> io::Result<String> {
    use nix::sched::CloneFlags;
    nix::sched::unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
    Ok("made".to_owned())
}

#[cfg(target_os = "linux")]
fn trace_parent() -> io::Result<String> {
    use nix::sys::ptrace;
    let parent = getppid().ok_or(io::ErrorKind::NotFound)?;
    let parent = nix::unistd::Pid::from_raw(parent.as_raw_nonzero().get());
    ptrace::seize(parent, ptrace::Options::empty())?;
    ptrace::detach(parent, None)?;
    Ok("attached".to_owned())
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    //! What only Linux has.
    use std::io;
    use std::path::Path;

    fn none() -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub(super) fn pidfd_parent() -> io::Result<String> {
        none()
    }
    pub(super) fn memory_file(_: u64) -> io::Result<String> {
        none()
    }
    pub(super) fn signal_by_descriptor() -> io::Result<String> {
        none()
    }
    pub(super) fn setuid() -> io::Result<String> {
        none()
    }
    pub(super) fn mount(_: &Path) -> io::Result<String> {
        none()
    }
    pub(super) fn trace_parent() -> io::Result<String> {
        none()
    }
    pub(super) fn unshare() -> io::Result<String> {
        none()
    }
}
#[cfg(not(target_os = "linux"))]
use elsewhere::{
    memory_file, mount, pidfd_parent, setuid, signal_by_descriptor, trace_parent, unshare,
};
