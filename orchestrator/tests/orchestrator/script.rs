//! What a scripted worker does with an order.

use tether_net::{BoxFuture, Incoming, Service};
use tether_wire::NodeId;
use tether_wire::codec;
use tether_wire::infer::{
    Accepted, AnswerEvent, Begun, Chunk, Done, Finish, MAX_REQUEST_BYTES, Usage, WorkOrder,
};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::watch;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// Answers with so many tokens.
    Answer(u32),
    /// Fails with this error.
    Refuse(RpcError),
    /// Says nothing.
    Silent,
    /// Accepts and says no more.
    AcceptOnly,
    /// Accepts and, when the turn does not come, gives the request back with this error.
    AcceptAndRefuse(RpcError),
    /// Accepts, begins and says no more.
    BeginOnly,
    /// Accepts, begins when the test says that its turn came, and answers with so many tokens.
    Queued(u32),
    /// Sends one chunk, and the rest of so many tokens when the test lets it go on.
    Paused(u32),
    /// Accepts and breaks the link.
    AcceptAndDie,
    /// Sends one chunk and says no more.
    ChunkOnly,
    /// Sends one chunk and ends the call.
    ChunkAndEnd,
    /// Leaves a position out.
    Gap,
    /// Counts more than it sent.
    WrongUsage,
    /// Answers with a token, and shows this as its receipt.
    Receipt(Vec<u8>),
    /// Sends chunks until it is cancelled.
    Endless,
    /// The same with large chunks.
    Flood,
}

#[derive(Clone)]
pub struct Scripted {
    id: NodeId,
    script: Script,
    /// Orders that came.
    pub orders: watch::Sender<u32>,
    /// Chunks that were sent.
    pub chunks: watch::Sender<u32>,
    /// Calls that were cancelled.
    pub cancelled: watch::Sender<u32>,
    /// Whether the turn of queued requests came.
    pub turn: watch::Sender<bool>,
}

impl Scripted {
    pub fn new(id: NodeId, script: Script) -> Self {
        Self {
            id,
            script,
            orders: watch::channel(0).0,
            chunks: watch::channel(0).0,
            cancelled: watch::channel(0).0,
            turn: watch::channel(false).0,
        }
    }

    pub fn orders(&self) -> u32 {
        *self.orders.borrow()
    }
}

impl Service for Scripted {
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let this = self.clone();
        this.orders.send_modify(|count| *count += 1);
        Box::pin(async move { this.answer(call).await })
    }
}

fn chunk(position: u32, text: &str) -> Vec<u8> {
    codec::encode(&AnswerEvent::Chunk(Chunk::new(
        position,
        vec![position],
        text,
    )))
}

fn begun() -> Vec<u8> {
    codec::encode(&AnswerEvent::Begun(Begun { prompt_tokens: 3 }))
}

fn done(completion_tokens: u32) -> Vec<u8> {
    codec::encode(&AnswerEvent::Done(Done {
        finish: Finish::Stop,
        usage: Usage {
            prompt_tokens: 3,
            completion_tokens,
        },
        receipt: None,
    }))
}

impl Scripted {
    async fn answer(&self, mut call: Incoming) -> Result<(), RpcError> {
        let cancelled = call.cancelled();
        let result = tokio::select! {
            () = cancelled => Err(RpcError::new(Code::Cancelled, "cancelled")),
            result = self.play(&mut call) => result,
        };
        // Who is sending at that moment hears of it from the send.
        if matches!(&result, Err(error) if error.code == Code::Cancelled) {
            self.cancelled.send_modify(|count| *count += 1);
        }
        result
    }

    async fn play(&self, call: &mut Incoming) -> Result<(), RpcError> {
        let item = call.recv(MAX_REQUEST_BYTES).await?.expect("an order");
        let order: WorkOrder = codec::decode("order", &item, MAX_REQUEST_BYTES).expect("an order");
        match &self.script {
            Script::Refuse(error) => return Err(error.clone()),
            Script::Silent => std::future::pending::<()>().await,
            _ => {}
        }
        let accepted = Accepted {
            worker: self.id,
            model: order.model,
            digest: order.digest,
            seed: order.sampling.seed.expect("always there"),
        };
        call.send(&codec::encode(&AnswerEvent::Accepted(accepted)))
            .await?;
        match &self.script {
            Script::AcceptAndRefuse(error) => return Err(error.clone()),
            Script::AcceptOnly => std::future::pending::<()>().await,
            Script::BeginOnly => {
                call.send(&begun()).await?;
                std::future::pending::<()>().await;
            }
            Script::Queued(tokens) => {
                let mut turn = self.turn.subscribe();
                turn.wait_for(|came| *came).await.expect("lives");
                call.send(&begun()).await?;
                for position in 0..*tokens {
                    call.send(&chunk(position, "x")).await?;
                }
                call.send(&done(*tokens)).await?;
            }
            Script::Paused(tokens) => {
                call.send(&begun()).await?;
                call.send(&chunk(0, "x")).await?;
                let mut turn = self.turn.subscribe();
                turn.wait_for(|came| *came).await.expect("lives");
                for position in 1..*tokens {
                    call.send(&chunk(position, "x")).await?;
                }
                call.send(&done(*tokens)).await?;
            }
            Script::AcceptAndDie => call.link().close("dies"),
            Script::ChunkOnly => {
                call.send(&begun()).await?;
                call.send(&chunk(0, "a")).await?;
                std::future::pending::<()>().await;
            }
            Script::ChunkAndEnd => call.send(&chunk(0, "a")).await?,
            Script::Gap => {
                call.send(&chunk(0, "a")).await?;
                call.send(&chunk(2, "c")).await?;
                call.send(&done(2)).await?;
            }
            Script::Receipt(receipt) => {
                call.send(&chunk(0, "x")).await?;
                let done = Done {
                    finish: Finish::Stop,
                    usage: Usage {
                        prompt_tokens: 3,
                        completion_tokens: 1,
                    },
                    receipt: Some(receipt.clone()),
                };
                call.send(&codec::encode(&AnswerEvent::Done(done))).await?;
            }
            Script::WrongUsage => {
                call.send(&chunk(0, "a")).await?;
                call.send(&done(5)).await?;
            }
            Script::Endless | Script::Flood => {
                let text = if self.script == Script::Flood {
                    "x".repeat(64 * 1024)
                } else {
                    "x".to_owned()
                };
                call.send(&begun()).await?;
                for position in 0.. {
                    call.send(&chunk(position, &text)).await?;
                    self.chunks.send_modify(|count| *count += 1);
                }
            }
            Script::Answer(tokens) => {
                for position in 0..*tokens {
                    call.send(&chunk(position, "x")).await?;
                }
                call.send(&done(*tokens)).await?;
            }
            Script::Refuse(_) | Script::Silent => unreachable!("played above"),
        }
        Ok(())
    }
}
