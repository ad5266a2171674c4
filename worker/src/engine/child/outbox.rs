//! Messages to the worker, written by a thread of their own.
//!
//! Whoever computes tokens must never wait for a reader: mistral.rs stalls every sequence when one
//! stream is not drained. So messages are queued, and a worker that stopped reading ends the process.

use crate::engine::protocol::{FromEngine, write_message};
use std::io::BufWriter;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

/// Most messages that wait to be written. A worker reads at once; one that is behind by so many is stuck.
pub(crate) const MAX_WAITING: usize = 64 * 1024;

/// Where messages are put.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    /// Nothing means that nothing follows.
    queue: SyncSender<Option<FromEngine>>,
    has_lost: Arc<AtomicBool>,
}

impl Outbox {
    /// Starts the thread that writes. It ends when every outbox is dropped, or the socket is.
    pub(crate) fn start(socket: UnixStream) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let has_lost = Arc::<AtomicBool>::default();
        let loses = Arc::clone(&has_lost);
        let thread = std::thread::Builder::new()
            .name("engine-write".to_owned())
            .spawn(move || {
                // A worker that is gone shows to the reader too, which ends the process.
                if let Err(error) = write_all(&socket, &waiting)
                    && error.kind() == std::io::ErrorKind::InvalidData
                {
                    eprintln!("tether engine: a message cannot be written: {error}");
                    loses.store(true, Ordering::Relaxed);
                }
            })?;
        Ok((Self { queue, has_lost }, thread))
    }

    /// Queues a message. Never waits. What cannot be queued is lost, and the conversation over.
    pub(crate) fn send(&self, message: FromEngine) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Some(message)) {
            self.has_lost.store(true, Ordering::Relaxed);
        }
    }

    /// Ends the thread once everything queued is written.
    pub(crate) fn finish(&self) {
        // The only failure is a thread that has ended already.
        let _ = self.queue.send(None);
    }

    /// Whether a message was lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::Relaxed)
    }
}

fn write_all(socket: &UnixStream, waiting: &Receiver<Option<FromEngine>>) -> std::io::Result<()> {
    let mut writer = BufWriter::new(socket);
    while let Ok(Some(message)) = waiting.recv() {
        write_message(&mut writer, &message)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::protocol::{MAX_FROM_ENGINE_BYTES, read_message};
    use tether_wire::infer::Chunk;

    #[test]
    fn a_reader_that_stopped_never_blocks_the_engine() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let (outbox, thread) = Outbox::start(ours).expect("starts");
        // Far more than the socket's buffer and the queue hold together.
        for n in 0..2 * MAX_WAITING as u64 {
            outbox.send(FromEngine::Pong { n });
        }
        assert!(outbox.has_lost());
        drop(theirs);
        drop(outbox);
        thread.join().expect("ends");
    }

    #[test]
    fn a_message_that_no_worker_takes_ends_the_conversation_and_not_in_silence() {
        let (ours, _theirs) = UnixStream::pair().expect("pair");
        let (outbox, thread) = Outbox::start(ours).expect("starts");
        outbox.send(FromEngine::Chunk {
            id: 1,
            chunk: Chunk::new(0, vec![1], "x".repeat(MAX_FROM_ENGINE_BYTES)),
        });
        thread.join().expect("ends");
        assert!(outbox.has_lost());
    }

    #[test]
    fn everything_queued_is_written_before_the_thread_ends() {
        let (ours, mut theirs) = UnixStream::pair().expect("pair");
        let (outbox, thread) = Outbox::start(ours).expect("starts");
        for n in 0..100 {
            outbox.send(FromEngine::Pong { n });
        }
        outbox.finish();
        thread.join().expect("ends");
        for n in 0..100 {
            let message = read_message(&mut theirs).expect("reads");
            assert_eq!(message, Some(FromEngine::Pong { n }));
        }
    }
}
