//! What went wrong with a connection, and what to do about it.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};

use crate::place::Place;
use crate::trust::Trust;

/// Why TLS did not come about; none: something else is wrong. Reads on from "the coordinator at …".
pub fn tls(error: &(dyn Error + 'static), place: &Place, trust: &Trust) -> Option<String> {
    let found = find(error, &|cause| {
        let told = cause.downcast_ref::<TlsError>().map(|cause| of_tls(cause, place, trust));
        told.or_else(|| of_alert(&cause.to_string(), place, trust))
    });
    // A server that speaks TLS answers a preface of HTTP/2 with an alert, which no frame looks like.
    let not_http2 =
        |cause: &(dyn Error + 'static)| cause.to_string().contains("frame with invalid size").then_some(());
    found.or_else(|| {
        (!place.secure && find(error, &not_http2).is_some()).then(|| {
            format!(
                "does not answer in clear text; it speaks TLS: say https:// ({})",
                place.url().replacen("http", "https", 1)
            )
        })
    })
}

/// A connection in clear text that was cut: a server that speaks TLS hangs up on those, and its alert may be lost with the
/// connection. So may be the coordinator's own end, so this is a question. Reads on from "the coordinator at …".
pub fn cut(error: &(dyn Error + 'static), place: &Place) -> Option<String> {
    let is_cut = |cause: &(dyn Error + 'static)| {
        let said = cause.to_string();
        (said.contains("broken pipe") || said.contains("Connection reset")).then_some(())
    };
    (!place.secure && find(error, &is_cut).is_some()).then(|| {
        format!(
            "closed the connection; if it speaks TLS, say https:// ({})",
            place.url().replacen("http", "https", 1)
        )
    })
}

fn of_tls(error: &TlsError, place: &Place, trust: &Trust) -> String {
    let ca = match trust.ca() {
        Some(file) => format!("the CA in {}", file.display()),
        None => "a public CA".to_owned(),
    };
    let copy = "copy tls/ca.pem from its state folder into yours, or name it with --tls-ca";
    match error {
        TlsError::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                format!("shows a certificate that is not of {ca}; {copy}")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "shows a certificate that has expired; there, `cnxd tls init --host NAME` makes a new one, and cnxd must \
                 be started again (is the clock of this machine right?)"
                    .to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "shows a certificate that is not valid yet; are the clocks of both machines right?".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "shows a certificate of another name ({error}); call it by that name, or, there, add this one: \
                 `cnxd tls init --host {}`",
                host(place)
            ),
            _ => format!("shows a certificate that cannot be trusted ({error}); {copy}"),
        },
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate | AlertDescription::UnknownCA,
        ) => match trust.has_identity() {
            true => "refused the certificate of this side: it is not of the CA that it expects; make one with its \
                     `cnxd tls client`"
                .to_owned(),
            false => "wants a certificate of this side too (mTLS): there, `cnxd tls client` makes one; put it into tls/ of \
                      your state folder, or name it with --tls-cert and --tls-key"
                .to_owned(),
        },
        TlsError::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "answers in clear text, not in TLS; if it is on this machine, say http:// instead of https://".to_owned(),
        other => format!("and this side do not come to terms about TLS: {other}"),
    }
}

/// An alert that came once HTTP/2 had begun, which keeps only the words of what broke its connection.
fn of_alert(said: &str, place: &Place, trust: &Trust) -> Option<String> {
    use AlertDescription::{BadCertificate, CertificateRequired, UnknownCA};
    let of_ours = [CertificateRequired, BadCertificate, UnknownCA];
    let alert =
        of_ours.into_iter().find(|&alert| said.contains(&TlsError::AlertReceived(alert).to_string()))?;
    Some(of_tls(&TlsError::AlertReceived(alert), place, trust))
}

fn host(place: &Place) -> &str {
    let authority = place.url().rsplit("://").next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// The first of an error and its causes of which `wanted` makes something.
fn find<T>(error: &(dyn Error + 'static), wanted: &dyn Fn(&(dyn Error + 'static)) -> Option<T>) -> Option<T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = wanted(cause) {
            return Some(found);
        }
        // An io::Error that wraps another calls that one's causes its own, and leaves that one out.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|wrapped| find(wrapped, wanted)) {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// An error and its causes on one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(error: TlsError) -> String {
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
        tls(&wrapped, &Place::parse("https://gpu-box:7420").unwrap(), &Trust::default()).unwrap()
    }

    #[test]
    fn each_thing_that_goes_wrong_with_certificates_says_what_to_do() {
        for (error, expected) in [
            (TlsError::InvalidCertificate(CertificateError::UnknownIssuer), "copy tls/ca.pem"),
            (TlsError::InvalidCertificate(CertificateError::Expired), "has expired"),
            (
                TlsError::InvalidCertificate(CertificateError::NotValidForName),
                "cnxd tls init --host gpu-box`",
            ),
            (TlsError::AlertReceived(AlertDescription::CertificateRequired), "cnxd tls client"),
            (TlsError::InvalidMessage(InvalidMessage::InvalidContentType), "say http://"),
        ] {
            assert!(explained(error.clone()).contains(expected), "{}", explained(error));
        }
    }

    #[test]
    fn an_alert_is_known_by_its_words_where_those_are_all_that_is_left() {
        let alert = TlsError::AlertReceived(AlertDescription::CertificateRequired).to_string();
        let words = io::Error::other(format!("connection error: {alert}"));
        let said = tls(&words, &Place::parse("https://gpu-box:7420").unwrap(), &Trust::default()).unwrap();
        assert!(said.contains("cnxd tls client"), "{said}");
    }

    #[test]
    fn clear_text_that_was_cut_asks_whether_it_should_have_been_tls() {
        let cut_off = io::Error::other("stream closed because of a broken pipe");
        let plain = Place::parse("http://127.0.0.1:1").unwrap();
        assert!(cut(&cut_off, &plain).unwrap().contains("say https:// (https://127.0.0.1:1)"));
        assert_eq!(tls(&cut_off, &plain, &Trust::default()), None);
        assert_eq!(cut(&cut_off, &Place::parse("https://127.0.0.1:1").unwrap()), None);
    }

    #[test]
    fn what_is_not_of_tls_is_left_to_others() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(tls(&refused, &Place::parse("localhost:1").unwrap(), &Trust::default()), None);
    }
}
