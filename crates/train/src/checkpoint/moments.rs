//! optimizer.safetensors: Adam's moments of each parameter, under the parameter's name; with local steps also the velocity of the outer
//! optimizer.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use cloze_comm::Communicator;
use cloze_engine::{Moments, Parameters, Share};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, View};

use crate::TrainError;
use crate::network::Network;
use crate::step::Trainer;

/// The file's name.
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";

/// A parameter's moment that is to be written. It is gathered from the ranks and converted to bytes only when it is.
struct Moment<'a> {
    shape: &'a [usize],
    range: Range<usize>,
    kind: Kind<'a>,
    moments: &'a Moments,
    ranks: &'a Communicator,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    First,
    Second,
    /// Of all weights.
    Velocity(&'a [f32]),
}

/// The names of both moments after the parameter's, and that of the velocity.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const VELOCITY: &str = "outer_momentum";

impl Moment<'_> {
    /// The values, at rank 0. All ranks must call it, in the same order.
    fn gather(&self) -> Cow<'_, [f32]> {
        let read = |part: Range<usize>| match self.kind {
            Kind::First => self.moments.read_first(part),
            Kind::Second => self.moments.read_second(part),
            Kind::Velocity(velocity) => velocity[part].into(),
        };
        if self.moments.share() == Share::WHOLE {
            return read(self.range.clone());
        }
        let parts_of = |rank| Share::new(rank, self.ranks.size()).ranges(self.range.clone());
        let own: Vec<f32> =
            self.moments.share().ranges(self.range.clone()).flat_map(|part| read(part).into_owned()).collect();
        let counts: Vec<usize> =
            (0..self.ranks.size()).map(|rank| parts_of(rank).map(|part| part.len()).sum()).collect();
        let all = self.ranks.gather_parts(&own, &counts);
        let mut values = vec![0.0; all.len()];
        let mut rest = &all[..];
        for part in (0..self.ranks.size()).flat_map(parts_of).filter(|_| self.ranks.is_root()) {
            let (now, later) = rest.split_at(part.len());
            values[part.start - self.range.start..part.end - self.range.start].copy_from_slice(now);
            rest = later;
        }
        values.into()
    }
}

impl View for &Moment<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.gather().iter().flat_map(|v| v.to_le_bytes()).collect()
    }
    fn data_len(&self) -> usize {
        4 * self.range.len()
    }
}

/// Name, shape and arena range of every parameter.
fn layout(params: &Parameters) -> impl Iterator<Item = (&str, &[usize], Range<usize>)> {
    params.ids().map(|id| (params.name(id), params.shape(id), params.range(id)))
}

/// What is stored.
pub(super) struct Stored<'a> {
    pub(super) params: &'a Parameters,
    pub(super) moments: &'a Moments,
    /// Of all weights.
    pub(super) velocity: Option<&'a [f32]>,
    pub(super) ranks: &'a Communicator,
}

impl<'a> Stored<'a> {
    pub(super) fn of<N: Network>(trainer: &'a Trainer<N>) -> Stored<'a> {
        Stored {
            params: trainer.network.params(),
            moments: &trainer.moments,
            velocity: trainer.velocity(),
            ranks: trainer.ranks(),
        }
    }

    /// The moments of all parameters, by their names in the file.
    fn by_name(&self) -> Vec<(String, Moment<'a>)> {
        let Stored { moments, ranks, .. } = *self;
        let mut all = Vec::new();
        for (name, shape, range) in layout(self.params) {
            let mut add = |of: &str, kind| {
                all.push((format!("{name}.{of}"), Moment { shape, range: range.clone(), kind, moments, ranks }));
            };
            add(MOMENTS[0], Kind::First);
            add(MOMENTS[1], Kind::Second);
            self.velocity.into_iter().for_each(|velocity| add(VELOCITY, Kind::Velocity(velocity)));
        }
        all
    }
}

/// Gives this rank's moments to rank 0, which runs [`save_moments`].
pub(super) fn send_moments(stored: &Stored<'_>) {
    let mut all = stored.by_name();
    // The file has tensors of one type in the order of their names.
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, moment) in all {
        moment.gather();
    }
}

/// Writes the moments of all ranks, at rank 0.
pub(super) fn save_moments(path: &Path, stored: &Stored<'_>) -> Result<(), TrainError> {
    let tensors = stored.by_name();
    let views = tensors.iter().map(|(name, moment)| (name.as_str(), moment));
    let failed = |e| TrainError::io("write", path, e);
    // The library creates files that only the owner can read; set the usual mode of new files.
    let default_mode = fs::write(path, "").and_then(|()| fs::metadata(path)).map_err(failed)?.permissions();
    safetensors::serialize_to_file(views, None, path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => failed(e),
        other => failed(std::io::Error::other(other.to_string())),
    })?;
    fs::set_permissions(path, default_mode).map_err(failed)
}

/// Reads the moments of the share; returns the velocity of all weights, if there is one.
pub(super) fn load_moments(
    path: &Path,
    params: &Parameters,
    moments: &mut Moments,
) -> Result<Option<Vec<f32>>, TrainError> {
    let damaged = |reason: String| TrainError::Damaged { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(|e| TrainError::io("read", path, e))?;
    let (start, header) = read_header(&mut file).map_err(|e| damaged(e.to_string()))?;
    // The place of a parameter's tensor in the file.
    let place_of = |name: &str, shape: &[usize]| {
        let stored = header.info(name).ok_or_else(|| damaged(format!("{name} is missing")))?;
        if stored.dtype != Dtype::F32 || stored.shape != shape {
            let found = format!("{:?} {:?}", stored.dtype, stored.shape);
            return Err(damaged(format!("{name} is {found}, expected F32 {shape:?}")));
        }
        Ok(start + stored.data_offsets.0 as u64)
    };
    let mut velocity = Vec::new();
    for (name, shape, range) in layout(params) {
        for (number, moment) in MOMENTS.into_iter().enumerate() {
            let name = format!("{name}.{moment}");
            let place = place_of(&name, shape)?;
            for part in moments.share().ranges(range.clone()).collect::<Vec<_>>() {
                let offset = place + 4 * (part.start - range.start) as u64;
                moments
                    .edit(part, |first, second| {
                        file.seek(SeekFrom::Start(offset))?;
                        read_numbers(&mut file, [first, second][number])
                    })
                    .map_err(|e| damaged(format!("{name}: {e}")))?;
            }
        }
        let name = format!("{name}.{VELOCITY}");
        if header.info(&name).is_some() {
            velocity.resize(range.end, 0.0);
            file.seek(SeekFrom::Start(place_of(&name, shape)?))
                .and_then(|_| read_numbers(&mut file, &mut velocity[range]))
                .map_err(|e| damaged(format!("{name}: {e}")))?;
        }
    }
    Ok((velocity.len() == params.count()).then_some(velocity))
}

/// The offset of the tensors' data, and the header.
fn read_header(file: &mut File) -> io::Result<(u64, Metadata)> {
    let length = file.metadata()?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size)?;
    let size = u64::from_le_bytes(size);
    if size > length.saturating_sub(8) {
        return Err(io::Error::other(format!("the header has {size} bytes, but the file only {length}")));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header)?;
    Ok((8 + size, serde_json::from_slice(&header)?))
}

/// Fills `numbers` through a small buffer, so that the moments, twice the size of the weights, are in memory only once.
fn read_numbers(file: &mut File, numbers: &mut [f32]) -> io::Result<()> {
    let mut buffer = [0; 1 << 16];
    for part in numbers.chunks_mut(buffer.len() / 4) {
        let bytes = &mut buffer[..4 * part.len()];
        file.read_exact(bytes)?;
        for (number, word) in part.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *number = f32::from_le_bytes(*word);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cloze_engine::{Device, Init};

    use super::*;

    fn params(device: &Device, shapes: [&[usize]; 2]) -> Parameters {
        let mut builder = Parameters::builder();
        builder.declare("b", shapes[0], Init::Zeros, true);
        builder.declare("a", shapes[1], Init::Zeros, true);
        builder.build(device, 0)
    }

    #[test]
    fn moments_round_trip_exactly_and_mismatches_are_reported() {
        let device = Device::cpu(Some(1)).unwrap();
        // More numbers than fit in the buffer.
        let model = params(&device, [&[3, 40_000], &[7]]);
        let mut moments = Moments::zeros_like(&model);
        let all = 0..model.count();
        moments.edit(all.clone(), |first, second| {
            for (i, (m, v)) in first.iter_mut().zip(second).enumerate() {
                (*m, *v) = (f32::from_bits(i as u32 * 7919), -(i as f32));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(OPTIMIZER);
        let ranks = &Communicator::single();
        let velocity: Vec<f32> = (0..model.count()).map(|i| (i as f32).sqrt()).collect();
        for velocity in [Some(&velocity[..]), None] {
            save_moments(&path, &Stored { params: &model, moments: &moments, velocity, ranks }).unwrap();
            let found = load_moments(&path, &model, &mut Moments::zeros_like(&model)).unwrap();
            assert!(found.as_deref() == velocity);
        }
        let mut loaded = Moments::zeros_like(&model);
        load_moments(&path, &model, &mut loaded).unwrap();
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(&loaded.read_first(all.clone())) == bits(&moments.read_first(all.clone())));
        assert!(bits(&loaded.read_second(all.clone())) == bits(&moments.read_second(all)));
        // The share of a rank has its blocks of these.
        for rank in 0..3 {
            let share = Share::new(rank, 3);
            let mut part = Moments::zeros_of(&model, share);
            load_moments(&path, &model, &mut part).unwrap();
            for range in share.ranges(0..model.count()) {
                assert!(bits(&part.read_second(range.clone())) == bits(&moments.read_second(range)));
            }
        }

        let fails =
            |model: &Parameters| load_moments(&path, model, &mut Moments::zeros_like(model)).unwrap_err().to_string();
        let mismatch = fails(&params(&device, [&[40_000, 3], &[7]]));
        assert!(mismatch.contains("b.exp_avg is F32 [3, 40000], expected F32 [40000, 3]"), "{mismatch}");
        let bytes = fs::read(&path).unwrap();
        let (start, _) = read_header(&mut File::open(&path).unwrap()).unwrap();
        for (part, expected) in [
            (&bytes[..bytes.len() - 1], "fill whole buffer"),
            (&bytes[..start as usize - 1], "bytes, but the file only"),
            (&bytes[..5], "fill whole buffer"),
        ] {
            fs::write(&path, part).unwrap();
            let found = fails(&model);
            assert!(found.contains(expected) && found.contains(OPTIMIZER), "{found}");
        }
        let other = String::from_utf8_lossy(&bytes[8..start as usize]).replace("\"a.exp_avg\"", "\"c.exp_avg\"");
        fs::write(&path, [&bytes[..8], other.as_bytes(), &bytes[start as usize..]].concat()).unwrap();
        assert!(fails(&model).contains("a.exp_avg is missing"));
    }
}
