//! A client that hangs up is noticed, whatever it sent before. (GW-1)
//!
//! hyper learns that a client is gone by reading on, and it does not read on while it holds bytes
//! that are not due yet: a stray line end, the next request. So the socket itself is watched
//! besides. It costs a connection that is idle nothing, and one that answers no system call.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Pause before a socket is looked at again on which bytes lie that nobody wants yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long a connection may still go on after its client said that it sends no more: enough for
/// an answer that is about to go out, and for hyper to end in order where it sees the end itself.
const GRACE: Duration = Duration::from_millis(500);

/// A client's socket, to read and to write.
pub(crate) struct Socket(Arc<TcpStream>);

/// The same socket, to listen whether the client hangs up.
pub(crate) struct Hangup(Arc<TcpStream>);

/// A socket, and how to hear that its client hangs up.
pub(crate) fn watched(stream: TcpStream) -> (Socket, Hangup) {
    let stream = Arc::new(stream);
    (Socket(stream.clone()), Hangup(stream))
}

impl Hangup {
    /// Waits until the client has closed its end, or the connection broke, and a moment more.
    pub(crate) async fn heard(&self) {
        // An error is a connection that broke.
        while let Ok(ready) = self.0.ready(Interest::READABLE).await {
            if ready.is_read_closed() {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        tokio::time::sleep(GRACE).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Socket {
    fn poll_try(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_try(cx, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket holds nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = rustix::net::shutdown(&*self.0, rustix::net::Shutdown::Write);
        Poll::Ready(shut.map_err(io::Error::from))
    }
}
