//! What a certificate says of itself.

use std::path::Path;

use anyhow::{Context, anyhow};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Names and time of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Hosts and addresses that it is for.
    pub names: Vec<String>,
    /// Unix time in seconds, both.
    pub begins_at_s: i64,
    /// When it ends.
    pub ends_at_s: i64,
    /// The same for people.
    pub begins_on: String,
    /// The same for people.
    pub ends_on: String,
}

impl Summary {
    /// Of the first certificate in a PEM file, which is its owner's.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn of_pem(pem: &[u8], file: &Path) -> anyhow::Result<Summary> {
        let show = file.display();
        let first = CertificateDer::pem_slice_iter(pem)
            .next()
            .with_context(|| format!("{show} holds no certificate"))?;
        let der = first.map_err(|error| anyhow!("{show} is no PEM file: {error:?}"))?;
        let (_, certificate) = X509Certificate::from_der(&der)
            .map_err(|error| anyhow!("{show} holds no certificate: {error}"))?;
        let validity = certificate.validity();
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.iter().filter_map(name).collect());
        Ok(Summary {
            names: names.unwrap_or_default(),
            begins_at_s: validity.not_before.timestamp(),
            ends_at_s: validity.not_after.timestamp(),
            begins_on: validity.not_before.to_string(),
            ends_on: validity.not_after.to_string(),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}
