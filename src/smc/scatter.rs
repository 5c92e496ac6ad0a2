//! Reading into several buffers.

use std::io::{self, IoSliceMut};

use super::connection::Progress;

/// Reads into the buffers, one after the other, for as long as each gets full. An error after some bytes does not hide
/// them: it is handed to `put_back`.
pub(crate) fn scatter(
    bufs: &mut [IoSliceMut<'_>],
    read: &mut dyn FnMut(&mut &mut [u8]) -> io::Result<Progress>,
    put_back: impl FnOnce(io::Error),
) -> io::Result<Progress> {
    let mut total = 0;
    for buf in bufs.iter_mut().filter(|buf| !buf.is_empty()) {
        let room = buf.len();
        match read(&mut &mut buf[..]) {
            Ok(Progress::Done(n)) => {
                total += n;
                if n < room {
                    break;
                }
            }
            Err(error) if total > 0 => {
                put_back(error);
                break;
            }
            _ if total > 0 => break,
            other => return other,
        }
    }
    Ok(Progress::Done(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(results: Vec<io::Result<Progress>>) -> (io::Result<Progress>, bool) {
        let (mut a, mut b, mut c) = ([0; 3], [0; 0], [0; 3]);
        let mut bufs = [&mut a[..], &mut b, &mut c].map(IoSliceMut::new);
        let mut results = results.into_iter();
        let mut is_back = false;
        let got = scatter(&mut bufs, &mut |_| results.next().unwrap(), |_| is_back = true);
        assert!(results.next().is_none(), "read less often than it should have been");
        (got, is_back)
    }

    fn reset() -> io::Result<Progress> {
        Err(io::ErrorKind::ConnectionReset.into())
    }

    #[test]
    fn each_is_filled_before_the_next() {
        use Progress::{Blocked, Done, Eof};
        assert_eq!(read_from(vec![Ok(Done(3)), Ok(Done(3))]).0.unwrap(), Done(6));
        assert_eq!(read_from(vec![Ok(Done(3)), Ok(Blocked)]).0.unwrap(), Done(3));
        assert_eq!(read_from(vec![Ok(Done(2))]).0.unwrap(), Done(2));
        assert_eq!(read_from(vec![Ok(Eof)]).0.unwrap(), Eof);
        assert_eq!(read_from(vec![Ok(Blocked)]).0.unwrap(), Blocked);
    }

    #[test]
    fn an_error_hides_no_bytes() {
        let (got, is_back) = read_from(vec![Ok(Progress::Done(3)), reset()]);
        assert_eq!((got.unwrap(), is_back), (Progress::Done(3), true));
        let (got, is_back) = read_from(vec![reset()]);
        assert!(got.is_err() && !is_back);
    }
}
