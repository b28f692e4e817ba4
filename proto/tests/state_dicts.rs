//! State dicts are those that people have already.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use cnx_proto::architecture::{Form, state_dict};
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use sha2::{Digest, Sha256};

/// Of the sorted lines `name [sizes]`, SHA-256; and how many there are.
fn digest(arch: Arch) -> (usize, String) {
    let tensors = state_dict(&recipe(arch, Dataset::ImageNet).model, Dataset::ImageNet, Form::Large);
    let lines: BTreeMap<String, String> =
        tensors.iter().map(|t| (t.name.clone(), format!("{} {:?}\n", t.name, t.shape))).collect();
    let text: String = lines.values().map(String::as_str).collect();
    (lines.len(), Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[test]
fn vgg_and_resnet_have_the_names_and_shapes_of_torchvision() {
    // Of torchvision 0.26's vgg16 and resnet18.
    let vgg = "63f9f2f4402fbe843fedef2b2fc7efb7e6b3c3de8abb75666c03c196ac3b2421";
    assert_eq!(digest(Arch::Vgg16), (32, vgg.to_owned()));
    let resnet = "6cb439dd8789c9fec30db85cd20f9566cb04693ea278e4348cdd110fa0388db6";
    assert_eq!(digest(Arch::ResNet18), (122, resnet.to_owned()));
}
