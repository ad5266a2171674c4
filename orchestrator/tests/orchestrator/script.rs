//! What a scripted worker does with an order.

use tether_net::{BoxFuture, Incoming, Service};
use tether_wire::NodeId;
use tether_wire::codec;
use tether_wire::infer::{
    Accepted, AnswerEvent, Begun, Chunk, Done, Finish, MAX_REQUEST_BYTES, Usage, WorkOrder,
};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::watch;

/// Answers after which it is known how long a worker takes that is held up by nothing.
pub const LEARNT: usize = 24;
/// Much longer than that.
pub const SLOW: std::time::Duration = std::time::Duration::from_secs(4);
/// From one piece to the next.
const PACE: std::time::Duration = std::time::Duration::from_millis(5);

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
    /// Accepts, begins and, when the test says that its turn came, gives so many tokens and fails by
    /// this.
    Falls(u32, RpcError),
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
    /// Gives letters, so many in all, from wherever the transcript ends.
    Letters(u32),
    /// The same, a few milliseconds apart, and one more when the test lets it go on.
    Paced(u32),
    /// Answers with a token at once, but an order that the test holds up, which it begins.
    HeldUp,
    /// Fails every second order until the test says that it is well, and answers others.
    Flaky,
    /// Fails the first order, and takes others as one that is queued.
    Recovers(u32),
    /// Gives one letter more than was given, and ends the call.
    OneMore,
    /// The same as letters, up to so many, and then this.
    Dies(u32, Death),
    /// Sends chunks until it is cancelled.
    Endless,
    /// The same with large chunks.
    Flood,
}

/// How a worker ends in the middle of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// It ends the call.
    Ends,
    /// It closes the link.
    Unlinks,
    /// It says no more.
    Stalls,
    /// It fails by this.
    Fails(RpcError),
    /// It tells another text of the tokens that were given.
    Differs,
    /// It counts the prompt otherwise.
    Miscounts,
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
    /// The last order.
    pub last: watch::Sender<Option<WorkOrder>>,
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
            last: watch::channel(None).0,
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
        self.last.send_replace(Some(order.clone()));
        match &self.script {
            Script::Refuse(error) => return Err(error.clone()),
            Script::Silent => std::future::pending::<()>().await,
            Script::Flaky if self.orders().is_multiple_of(2) && !*self.turn.borrow() => {
                return Err(RpcError::new(Code::Internal, "its engine fell"));
            }
            Script::Recovers(_) if self.orders() == 1 => {
                return Err(RpcError::new(Code::Internal, "its engine fell"));
            }
            _ => {}
        }
        let accepted = Accepted {
            worker: self.id,
            model: order.model.clone(),
            digest: order.digest,
            seed: order.sampling.seed.expect("always there"),
            numerics_class: String::new(),
            created_ms: 0,
            degraded_from: None,
            max_tokens: None,
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
            Script::Queued(tokens) | Script::Recovers(tokens) => {
                let mut turn = self.turn.subscribe();
                turn.wait_for(|came| *came).await.expect("lives");
                call.send(&begun()).await?;
                for position in 0..*tokens {
                    call.send(&chunk(position, "x")).await?;
                }
                call.send(&done(*tokens)).await?;
            }
            Script::Falls(after, error) => {
                call.send(&begun()).await?;
                let mut turn = self.turn.subscribe();
                turn.wait_for(|came| *came).await.expect("lives");
                for position in 0..*after {
                    call.send(&chunk(position, "x")).await?;
                }
                return Err(error.clone());
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
            Script::Letters(of) => {
                self.letters(call, &order.transcript, *of).await?;
                call.send(&done(*of)).await?;
            }
            Script::Paced(of) => {
                call.send(&begun()).await?;
                for position in 0..*of {
                    let letter = letter(position).to_string();
                    call.send(&chunk(position, &letter)).await?;
                    tokio::time::sleep(PACE).await;
                }
                let mut turn = self.turn.subscribe();
                turn.wait_for(|came| *came).await.expect("lives");
                let letter = letter(*of).to_string();
                call.send(&chunk(*of, &letter)).await?;
                std::future::pending::<()>().await;
            }
            Script::HeldUp => {
                call.send(&begun()).await?;
                let mut turn = self.turn.subscribe();
                turn.wait_for(|held_up| !*held_up).await.expect("lives");
                call.send(&chunk(0, "x")).await?;
                call.send(&done(1)).await?;
            }
            Script::Flaky => {
                call.send(&chunk(0, "x")).await?;
                call.send(&done(1)).await?;
            }
            Script::OneMore => {
                let given = u32::try_from(order.transcript.len()).expect("few");
                self.letters(call, &order.transcript, given + 1).await?;
            }
            Script::Dies(after, death) => return self.die(call, &order, *after, death).await,
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

    /// Tells what was given, in one piece, and goes on behind it.
    async fn letters(&self, call: &mut Incoming, given: &[u32], of: u32) -> Result<(), RpcError> {
        call.send(&begun()).await?;
        if !given.is_empty() {
            let text: String = (0..).zip(given).map(|(at, _)| letter(at)).collect();
            let again = Chunk::new(0, given.to_vec(), text);
            call.send(&codec::encode(&AnswerEvent::Chunk(again)))
                .await?;
        }
        let next = u32::try_from(given.len()).expect("few");
        for position in next..of {
            call.send(&chunk(position, &letter(position).to_string()))
                .await?;
        }
        Ok(())
    }

    async fn die(
        &self,
        call: &mut Incoming,
        order: &WorkOrder,
        after: u32,
        death: &Death,
    ) -> Result<(), RpcError> {
        match death {
            Death::Miscounts => {
                let begun = AnswerEvent::Begun(Begun { prompt_tokens: 4 });
                return call.send(&codec::encode(&begun)).await;
            }
            Death::Differs => {
                let text = "?".repeat(order.transcript.len());
                let again = Chunk::new(0, order.transcript.clone(), text);
                call.send(&codec::encode(&AnswerEvent::Chunk(again)))
                    .await?;
            }
            _ => self.letters(call, &order.transcript, after).await?,
        }
        match death {
            Death::Unlinks => {
                // What was sent arrives before the link goes down.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                call.link().close("dies");
            }
            Death::Stalls => std::future::pending().await,
            Death::Fails(error) => return Err(error.clone()),
            Death::Ends | Death::Differs | Death::Miscounts => {}
        }
        Ok(())
    }
}

/// The text of the token at a position.
pub fn letter(position: u32) -> char {
    char::from(b'a' + u8::try_from(position % 26).expect("less"))
}
