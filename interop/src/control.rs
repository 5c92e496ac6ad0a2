//! What the machine and the host, or the other machine, tell each other about a case of which each has one end: lines of JSON, on a connection for
//! each case.

use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::seen::Way;

/// What the machine asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// To play the other end of this case. Where that is the server, it has this port.
    Play { case: String, port: u16 },
    /// To kill the process that has that end, and to start another.
    KillProcess,
    /// To kill the machine that asks.
    KillMachine,
    /// To kill the other machine, which is then started again.
    KillOther,
    /// To end.
    PowerOff,
}

/// What the host answers, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The server listens, or the client is about to connect.
    Begun,
    /// How its connections went.
    Ended(Result<Vec<Way>, String>),
}

/// One end of such a connection.
pub(crate) struct Control<S>(BufReader<S>);

impl<S: Read + Write> Control<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    pub(crate) fn say(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.0.get_mut().write_all(&line)?)
    }

    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line)? > 0, "the other side has gone");
        serde_json::from_str(&line).with_context(|| format!("the other side says {line}"))
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, thread};

    use super::*;

    #[test]
    fn what_one_says_the_other_hears() {
        let (machine, host) = UnixStream::pair().unwrap();
        let host = thread::spawn(move || {
            let mut host = Control::new(host);
            let Request::Play { case, port } = host.hear().unwrap() else { panic!("another request") };
            host.say(&Answer::Begun).unwrap();
            host.say(&Answer::Ended(Err(format!("{case} on {port}")))).unwrap();
        });
        let mut machine = Control::new(machine);
        machine.say(&Request::Play { case: "a\nb".into(), port: 7 }).unwrap();
        assert!(matches!(machine.hear().unwrap(), Answer::Begun));
        let Answer::Ended(Err(error)) = machine.hear().unwrap() else { panic!("no error") };
        assert_eq!(error, "a\nb on 7");
        host.join().unwrap();
        assert!(machine.hear::<Answer>().is_err(), "the end");
    }
}
