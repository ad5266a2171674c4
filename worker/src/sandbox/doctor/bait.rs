//! What an engine that escapes would find: secrets, sockets, a model's folder with a way out.

use crate::engine::escape::Trial;
use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The file of the model.
pub(super) const WEIGHTS: &str = "weights";
/// Most bytes of a Unix socket's path: what every system takes.
const MAX_SOCKET_PATH: usize = 100;

/// Laid out while this lives.
#[derive(Debug)]
pub(super) struct Bait {
    dir: PathBuf,
    view: PathBuf,
    trial: Trial,
    _tcp: TcpListener,
    _udp: UdpSocket,
    _path: UnixListener,
    #[cfg(target_os = "linux")]
    _abstract: UnixListener,
}

impl Bait {
    /// Lays it out in a folder of its own in `dir`.
    pub(super) fn lay(dir: &Path) -> io::Result<Self> {
        let dir = dir.join(format!("doctor-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        // The engine is told an absolute path.
        let dir = fs::canonicalize(dir)?;
        Self::fill(&dir).inspect_err(|_| {
            let _ = fs::remove_dir_all(&dir);
        })
    }

    fn fill(dir: &Path) -> io::Result<Self> {
        let (view, model, secrets) = (dir.join("view"), dir.join("model"), dir.join("secrets"));
        for folder in [&view, &model, &secrets] {
            fs::create_dir_all(folder)?;
        }
        // As a worker lays out what an engine sees: links to the files of a folder.
        fs::write(model.join(WEIGHTS), "weights")?;
        fs::write(model.join("beside"), "none of the model's")?;
        fs::write(secrets.join("secret"), "key")?;
        symlink(model.join(WEIGHTS), view.join(WEIGHTS))?;
        symlink(&secrets, view.join("out"))?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let udp = UdpSocket::bind("127.0.0.1:0")?;
        let socket = Some(dir.join("socket"))
            .filter(|path| path.as_os_str().len() <= MAX_SOCKET_PATH)
            .ok_or_else(|| io::Error::other("the folder's path is too long for a socket"))?;
        let abstract_socket = format!("tether-doctor-{}", std::process::id());
        Ok(Self {
            trial: Trial {
                tcp: tcp.local_addr()?.to_string(),
                udp: udp.local_addr()?.to_string(),
                abstract_socket: abstract_socket.clone(),
                socket: socket.clone(),
                key: secrets.join("secret"),
                beside: model.join("beside"),
                block: disk().unwrap_or_default(),
                ..Trial::default()
            },
            dir: dir.to_owned(),
            view,
            _tcp: tcp,
            _udp: udp,
            _path: UnixListener::bind(socket)?,
            #[cfg(target_os = "linux")]
            _abstract: abstract_listener(&abstract_socket)?,
        })
    }

    /// The model's folder.
    pub(super) fn view(&self) -> &Path {
        &self.view
    }

    /// What there is to try on; the attempt is still to be named.
    pub(super) fn trial(&self) -> Trial {
        self.trial.clone()
    }
}

impl Drop for Bait {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(target_os = "linux")]
fn abstract_listener(name: &str) -> io::Result<UnixListener> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    UnixListener::bind_addr(&address)
}

/// The first disk of this machine.
fn disk() -> Option<PathBuf> {
    let mut disks: Vec<PathBuf> = fs::read_dir("/sys/block")
        .ok()?
        .filter_map(|entry| Some(Path::new("/dev").join(entry.ok()?.file_name())))
        .filter(|path| path.exists())
        .collect();
    disks.sort();
    disks.into_iter().next()
}
