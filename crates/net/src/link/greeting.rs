//! The greeting on the first stream of a connection. [T-LNK-2]
//!
//! The dialler sends its hello, the other side answers with its own or with a refusal. When the
//! dialler has admitted the other side too, it finishes its half of the stream: only then is the
//! link up on both sides. A dialler that refuses closes the connection with the reason.

use crate::rpc::frame::put_block;
use crate::rpc::stream::{FrameReader, FrameWriter, ReadFault};
use crate::transport::{CloseCode, Connection, StreamError};
use std::time::Duration;
use tether_wire::codec;
use tether_wire::link::{Hello, HelloAnswer, MAX_HELLO_BYTES, Refusal, RefusalCode};

/// How long a refused peer has to read the refusal, before the connection is closed under it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a greeting came to nothing.
#[derive(Clone, Debug)]
pub(crate) enum GreetingError {
    /// The other side refused us.
    RefusedByPeer(Refusal),
    /// The connection was lost meanwhile.
    Lost(String),
    /// What the other side sent is no greeting.
    Malformed(Refusal),
}

/// The other side waits for our verdict.
pub(crate) struct Greeted {
    /// Who it says it is.
    pub(crate) hello: Hello,
    writer: FrameWriter,
    reader: FrameReader,
}

fn malformed(why: impl std::fmt::Display) -> GreetingError {
    GreetingError::Malformed(Refusal::new(
        RefusalCode::Malformed,
        format!("not a greeting of tether/1: {why}"),
    ))
}

/// As the dialler: sends our hello and reads the answer.
pub(crate) async fn dial(connection: &Connection, hello: &Hello) -> Result<Greeted, GreetingError> {
    let (send, recv) = match connection.open().await {
        Ok(halves) => halves,
        Err(error) => return Err(lost(connection, error).await),
    };
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(recv));
    let mut bytes = Vec::new();
    put_block(&mut bytes, &codec::encode(hello));
    if let Err(error) = writer.raw(&bytes).await {
        return Err(lost(connection, error).await);
    }
    let hello = answered(&read(connection, &mut reader).await?)?;
    Ok(Greeted {
        hello,
        writer,
        reader,
    })
}

/// What the other side answered to our hello.
pub(crate) fn answered(bytes: &[u8]) -> Result<Hello, GreetingError> {
    let answer: HelloAnswer =
        codec::decode("answer to a greeting", bytes, MAX_HELLO_BYTES).map_err(malformed)?;
    match answer {
        HelloAnswer::Refused(refusal) => Err(GreetingError::RefusedByPeer(bounded(refusal))),
        // Its fields are held to the same limits as those of a hello that came first.
        HelloAnswer::Welcome(hello) => Hello::decode(&codec::encode(&hello)).map_err(malformed),
    }
}

/// As the one who was dialled: reads the hello.
pub(crate) async fn receive(connection: &Connection) -> Result<Greeted, GreetingError> {
    let (send, recv) = match connection.accept().await {
        Ok(halves) => halves,
        Err(error) => return Err(lost(connection, error).await),
    };
    let mut reader = FrameReader::new(recv);
    let writer = FrameWriter::new(send);
    match read(connection, &mut reader).await {
        Ok(bytes) => match Hello::decode(&bytes) {
            Ok(hello) => Ok(Greeted {
                hello,
                writer,
                reader,
            }),
            Err(why) => Err(refuse_malformed(connection, writer, malformed(why)).await),
        },
        Err(error @ GreetingError::Malformed(_)) => {
            Err(refuse_malformed(connection, writer, error).await)
        }
        Err(error) => Err(error),
    }
}

impl Greeted {
    /// As the dialler: the other side is admitted.
    pub(crate) fn confirm(mut self) {
        self.writer.finish();
    }

    /// As the one who was dialled: the other side is admitted. Waits for its own verdict.
    pub(crate) async fn welcome(
        mut self,
        connection: &Connection,
        hello: Hello,
    ) -> Result<(), GreetingError> {
        let mut bytes = Vec::new();
        put_block(&mut bytes, &codec::encode(&HelloAnswer::Welcome(hello)));
        if let Err(error) = self.writer.raw(&bytes).await {
            return Err(lost(connection, error).await);
        }
        self.writer.finish();
        match self.reader.next_block(MAX_HELLO_BYTES).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(malformed("more than one message")),
            Err(ReadFault::Stream(error)) => Err(lost(connection, error).await),
            Err(_) => Err(malformed("more than one message")),
        }
    }

    /// As the one who was dialled: the other side is refused.
    pub(crate) async fn refuse(self, connection: &Connection, refusal: &Refusal) {
        refuse(connection, self.writer, refusal).await;
    }
}

async fn refuse_malformed(
    connection: &Connection,
    writer: FrameWriter,
    error: GreetingError,
) -> GreetingError {
    if let GreetingError::Malformed(refusal) = &error {
        refuse(connection, writer, refusal).await;
    }
    error
}

/// Says why, gives the peer time to read it, and closes. The reason is in the close as well, for
/// one that does not read.
async fn refuse(connection: &Connection, mut writer: FrameWriter, refusal: &Refusal) {
    let mut bytes = Vec::new();
    put_block(
        &mut bytes,
        &codec::encode(&HelloAnswer::Refused(refusal.clone())),
    );
    if writer.raw(&bytes).await.is_ok() {
        writer.finish();
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, connection.closed()).await;
    }
    connection.close(CloseCode::Refused, &refusal.message);
}

async fn read(
    connection: &Connection,
    reader: &mut FrameReader,
) -> Result<bytes::BytesMut, GreetingError> {
    match reader.next_block(MAX_HELLO_BYTES).await {
        Ok(Some(block)) => Ok(block),
        Ok(None) => Err(malformed("it is empty")),
        Err(ReadFault::NotAFrame(why)) => Err(malformed(why)),
        Err(ReadFault::Truncated) => Err(malformed("it ends too early")),
        Err(ReadFault::Stream(error)) => Err(lost(connection, error).await),
    }
}

/// What became of the connection: a refusal may have come as the reason of its end.
async fn lost(connection: &Connection, error: StreamError) -> GreetingError {
    match error {
        StreamError::Broken(why) => {
            let (code, _) = connection.closed().await;
            match code.and_then(CloseCode::refusal) {
                Some(code) => GreetingError::RefusedByPeer(bounded(Refusal::new(code, why))),
                None => GreetingError::Lost(why),
            }
        }
        StreamError::GaveUp | StreamError::Over => {
            GreetingError::Lost("the other side gave up the greeting".to_owned())
        }
    }
}

/// A refusal is shown to people: a stranger's words are kept short and on one line.
fn bounded(refusal: Refusal) -> Refusal {
    let message = refusal.message.chars().filter(|c| !c.is_control());
    Refusal {
        message: message.take(500).collect(),
        ..refusal
    }
}
