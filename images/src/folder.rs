//! Class folders: `train/<class>/<image>` and `val/<class>/<image>`, the classes numbered in the order of their names, as by
//! torchvision's `ImageFolder`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A folder that cannot be read as class folders, and why.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file system refused.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are no class folders in it.
    #[error("{} holds no class folders: expected a folder a class, and the images of the class in it{}", path.display(), if *.images > 0 { format!("; found {images} images that lie in none") } else { String::new() })]
    NoClasses {
        /// Where.
        path: PathBuf,
        /// Images beside the class folders that are not there.
        images: usize,
    },
    /// A class without images.
    #[error("{} holds no images: expected files that end in {}", path.display(), EXTENSIONS.map(|e| format!(".{e}")).join(", "))]
    NoImages {
        /// Where.
        path: PathBuf,
    },
    /// A class that is measured but not learnt.
    #[error("{} is no class of the training images: there is no such folder in train", path.display())]
    UnknownClass {
        /// Where.
        path: PathBuf,
    },
    /// A name that is not text.
    #[error("{} has a name that is not UTF-8: rename it", path.display())]
    Name {
        /// Which.
        path: PathBuf,
    },
}

/// A dataset of class folders: `train` and `val`, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// The folder that holds them.
    pub root: PathBuf,
    /// Names of the classes, sorted: those of `train`, which `val` shares, or of `val` where there is no `train`.
    pub classes: Vec<String>,
}

/// The names of the splits' folders.
pub const SPLITS: [&str; 2] = ["train", "val"];

impl Folders {
    /// Whether a folder looks as if it held such a dataset.
    pub fn are_in(root: &Path) -> bool {
        SPLITS.iter().any(|split| root.join(split).is_dir())
    }

    /// Reads the names of the classes.
    ///
    /// # Errors
    /// When there are none.
    pub fn open(root: &Path) -> Result<Folders, FolderError> {
        let [train, val] = SPLITS.map(|split| root.join(split));
        let classes = classes(if train.is_dir() { &train } else { &val })?;
        Ok(Folders { root: root.to_path_buf(), classes })
    }

    /// Whether there is a split.
    pub fn has(&self, split: &str) -> bool {
        self.root.join(split).is_dir()
    }

    /// Lists the images of a split, numbered by the dataset's classes.
    ///
    /// # Errors
    /// When one of its classes is none of the dataset, or has no images.
    pub fn list(&self, split: &str) -> Result<Listing, FolderError> {
        let mut listing = Listing::read(&self.root.join(split))?;
        if listing.classes != self.classes {
            let number = |name: &String| {
                let unknown = || FolderError::UnknownClass { path: listing.root.join(name) };
                self.classes.binary_search(name).map(|place| place as u32).map_err(|_| unknown())
            };
            let numbers = listing.classes.iter().map(number).collect::<Result<Vec<u32>, _>>()?;
            for image in &mut listing.images {
                image.class = numbers.get(image.class as usize).copied().unwrap_or_default();
            }
            listing.classes.clone_from(&self.classes);
        }
        Ok(listing)
    }
}

/// Images of classes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The folder that holds the class folders.
    pub root: PathBuf,
    /// Names of the classes, sorted: a class's number is its place here.
    pub classes: Vec<String>,
    /// The images: the first of each class, then the second of each, …, by name. So the first few are a sample of all classes.
    pub images: Vec<Image>,
}

/// An image of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Number of its class.
    pub class: u32,
    /// Name of its file in the class's folder.
    pub name: Box<str>,
}

/// Ends of the names of images, in lower case. The end does not say what is in a file; its first bytes do.
pub const EXTENSIONS: [&str; 3] = ["jpeg", "jpg", "png"];

impl Listing {
    /// Lists a folder of class folders. Hidden files and those that are no images are passed over.
    ///
    /// # Errors
    /// When there are no class folders, or one without images.
    pub fn read(root: &Path) -> Result<Listing, FolderError> {
        let classes = classes(root)?;
        let mut images = Vec::new();
        for (class, folder) in (0..).zip(&classes) {
            let path = root.join(folder);
            let mut names: Vec<Box<str>> = entries(&path)?
                .into_iter()
                .filter(|(name, _)| is_image(name))
                .map(|(name, _)| name.into())
                .collect();
            if names.is_empty() {
                return Err(FolderError::NoImages { path });
            }
            names.sort_unstable();
            images.extend((0u32..).zip(names).map(|(place, name)| (place, Image { class, name })));
        }
        images.sort_by_key(|(place, image)| (*place, image.class));
        let images = images.into_iter().map(|(_, image)| image).collect();
        Ok(Listing { root: root.to_path_buf(), classes, images })
    }

    /// Where an image's file is.
    pub fn path(&self, image: &Image) -> PathBuf {
        self.root.join(self.class(image)).join(&*image.name)
    }

    /// The name of an image's class.
    pub fn class(&self, image: &Image) -> &str {
        self.classes.get(image.class as usize).map_or("", String::as_str)
    }
}

/// Names of the class folders in a folder, sorted.
fn classes(root: &Path) -> Result<Vec<String>, FolderError> {
    let (mut classes, mut images) = (Vec::new(), 0);
    for (name, path) in entries(root)? {
        if path.is_dir() {
            classes.push(name);
        } else if is_image(&name) {
            images += 1;
        }
    }
    if classes.is_empty() {
        return Err(FolderError::NoClasses { path: root.to_path_buf(), images });
    }
    classes.sort_unstable();
    Ok(classes)
}

/// Names and paths of what is in a folder and not hidden.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, FolderError> {
    let read = |source| FolderError::Read { path: folder.to_path_buf(), source };
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with('.') => {}
            Some(name) => all.push((name.to_owned(), path)),
            None => return Err(FolderError::Name { path }),
        }
    }
    Ok(all)
}

fn is_image(name: &str) -> bool {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase());
    end.is_some_and(|end| EXTENSIONS.contains(&end.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn classes_are_numbered_by_name_and_images_come_class_by_class_in_turns() {
        let root =
            folder(&["n02/b.JPEG", "n02/a.jpg", "n01/x.png", "n02/.hidden.jpg", "n02/notes.txt", "read.me"]);
        let listing = Listing::read(root.path()).unwrap();
        assert_eq!(listing.classes, ["n01", "n02"]);
        let images: Vec<_> = listing.images.iter().map(|i| (i.class, &*i.name)).collect();
        assert_eq!(images, [(0, "x.png"), (1, "a.jpg"), (1, "b.JPEG")]);
        assert_eq!(listing.path(&listing.images[2]), root.path().join("n02/b.JPEG"));
    }

    #[test]
    fn both_splits_have_the_training_images_numbers() {
        let root = folder(&["train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/c/1.jpg", "val/b/1.jpg"]);
        let folders = Folders::open(root.path()).unwrap();
        assert_eq!(folders.classes, ["a", "b", "c"]);
        let numbers = |split| folders.list(split).unwrap().images.iter().map(|i| i.class).collect::<Vec<_>>();
        assert_eq!((numbers("train"), numbers("val")), (vec![0, 1, 2], vec![1, 2]));
        assert_eq!(folders.list("val").unwrap().class(&folders.list("val").unwrap().images[0]), "b");
        fs::create_dir(root.path().join("val/d")).unwrap();
        fs::write(root.path().join("val/d/1.jpg"), "").unwrap();
        let said = folders.list("val").unwrap_err().to_string();
        assert!(said.contains("val/d is no class of the training images"), "{said}");
    }

    #[test]
    fn what_is_missing_is_said() {
        let said = |files: &[&str]| Listing::read(folder(files).path()).unwrap_err().to_string();
        assert!(said(&[]).contains("holds no class folders"), "{}", said(&[]));
        assert!(said(&["ILSVRC2012_val_1.JPEG"]).contains("found 1 images that lie in none"));
        assert!(said(&["n01/notes.txt", "n02/a.jpg"]).contains("n01 holds no images"));
        let nowhere = Listing::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere"), "{nowhere}");
    }
}
