//! The classes of CIFAR-10 and CIFAR-100, in the order of their labels.

use super::dataset::Cifar;

const CIFAR_10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// CIFAR-100's superclasses (coarse labels) and their classes. Fine labels go by the names of the classes.
const CIFAR_100: [(&str, [&str; 5]); 20] = [
    ("aquatic_mammals", ["beaver", "dolphin", "otter", "seal", "whale"]),
    ("fish", ["aquarium_fish", "flatfish", "ray", "shark", "trout"]),
    ("flowers", ["orchid", "poppy", "rose", "sunflower", "tulip"]),
    ("food_containers", ["bottle", "bowl", "can", "cup", "plate"]),
    ("fruit_and_vegetables", ["apple", "mushroom", "orange", "pear", "sweet_pepper"]),
    ("household_electrical_devices", ["clock", "keyboard", "lamp", "telephone", "television"]),
    ("household_furniture", ["bed", "chair", "couch", "table", "wardrobe"]),
    ("insects", ["bee", "beetle", "butterfly", "caterpillar", "cockroach"]),
    ("large_carnivores", ["bear", "leopard", "lion", "tiger", "wolf"]),
    ("large_man-made_outdoor_things", ["bridge", "castle", "house", "road", "skyscraper"]),
    ("large_natural_outdoor_scenes", ["cloud", "forest", "mountain", "plain", "sea"]),
    ("large_omnivores_and_herbivores", ["camel", "cattle", "chimpanzee", "elephant", "kangaroo"]),
    ("medium_mammals", ["fox", "porcupine", "possum", "raccoon", "skunk"]),
    ("non-insect_invertebrates", ["crab", "lobster", "snail", "spider", "worm"]),
    ("people", ["baby", "boy", "girl", "man", "woman"]),
    ("reptiles", ["crocodile", "dinosaur", "lizard", "snake", "turtle"]),
    ("small_mammals", ["hamster", "mouse", "rabbit", "shrew", "squirrel"]),
    ("trees", ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"]),
    ("vehicles_1", ["bicycle", "bus", "motorcycle", "pickup_truck", "train"]),
    ("vehicles_2", ["lawn_mower", "rocket", "streetcar", "tank", "tractor"]),
];

/// A class and the label bytes of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub name: &'static str,
    pub labels: Vec<u8>,
}

/// The classes of a dataset, by label.
pub fn classes(cifar: Cifar) -> Vec<Class> {
    match cifar {
        Cifar::Cifar10 => {
            (0..).zip(CIFAR_10).map(|(label, name)| Class { name, labels: vec![label] }).collect()
        }
        Cifar::Cifar100 => {
            let pairs =
                (0..).zip(&CIFAR_100).flat_map(|(coarse, (_, names))| names.map(|name| (name, coarse)));
            let mut pairs: Vec<(&'static str, u8)> = pairs.collect();
            pairs.sort_unstable();
            (0..)
                .zip(pairs)
                .map(|(fine, (name, coarse))| Class { name, labels: vec![coarse, fine] })
                .collect()
        }
    }
}

/// The files of class names that come with the published set, and what is in them.
pub fn name_files(cifar: Cifar) -> Vec<(&'static str, String)> {
    let lines = |names: Vec<&str>| names.iter().map(|name| format!("{name}\n")).collect::<String>();
    let names = lines(classes(cifar).iter().map(|class| class.name).collect());
    match cifar {
        Cifar::Cifar10 => vec![("batches.meta.txt", format!("{names}\n"))],
        Cifar::Cifar100 => {
            let coarse = lines(CIFAR_100.iter().map(|(name, _)| *name).collect());
            vec![("fine_label_names.txt", names), ("coarse_label_names.txt", coarse)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_of_the_published_sets() {
        let label = |cifar, name| classes(cifar).into_iter().find(|class| class.name == name).unwrap().labels;
        assert_eq!(label(Cifar::Cifar10, "truck"), [9]);
        // Of the home page's own lists: coarse, fine.
        assert_eq!(label(Cifar::Cifar100, "apple"), [4, 0]);
        assert_eq!(label(Cifar::Cifar100, "cattle"), [11, 19]);
        assert_eq!(label(Cifar::Cifar100, "lawn_mower"), [19, 41]);
        assert_eq!(label(Cifar::Cifar100, "worm"), [13, 99]);
        assert_eq!(classes(Cifar::Cifar100).len(), 100);
    }
}
