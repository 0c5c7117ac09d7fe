//! Who started this process, by the variables that launchers set.

/// A launcher of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpiexec` of MPICH and its relatives (Intel MPI, MVAPICH, Cray), by the Hydra process manager.
    Mpich,
    /// `srun` of Slurm.
    Slurm,
}

impl std::fmt::Display for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Launcher::OpenMpi => "mpirun (Open MPI)",
            Launcher::Mpich => "mpiexec (MPICH)",
            Launcher::Slurm => "srun",
        })
    }
}

/// What a launcher says about this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// The launcher.
    pub launcher: Launcher,
    /// The number of this process.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
}

impl Launch {
    /// Reads the environment. `None` without a launcher, and for a job of one process.
    pub fn detect() -> Option<Launch> {
        Launch::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Launch> {
        let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
        let of = |launcher, rank: &str, size: &str| {
            Some(Launch { launcher, rank: number(rank)?, size: number(size)? }).filter(|launch| launch.size > 1)
        };
        // Slurm's variables also exist in the shell of `salloc` and in batch scripts, where nothing was started by srun; those of a
        // step do not.
        let is_step = number("SLURM_STEP_ID").is_some();
        of(Launcher::OpenMpi, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")
            .or_else(|| of(Launcher::Mpich, "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"))
            .or_else(|| match is_step {
                true => of(Launcher::Slurm, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
                false => of(Launcher::Mpich, "PMI_RANK", "PMI_SIZE"),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_recognised_by_their_variables() {
        let of = |variables: &[(&str, &str)]| {
            Launch::from_variables(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        let launch = |launcher, rank, size| Some(Launch { launcher, rank, size });
        assert_eq!(of(&[]), None);
        let open_mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4"), ("SLURM_STEP_ID", "0")];
        assert_eq!(of(&open_mpi), launch(Launcher::OpenMpi, 1, 4));
        assert_eq!(of(&[("PMI_RANK", "2"), ("PMI_SIZE", "3")]), launch(Launcher::Mpich, 2, 3));
        assert_eq!(of(&[("PMI_RANK", "0"), ("PMI_SIZE", "1")]), None, "one process needs no communication");
        let step = [("SLURM_STEP_ID", "0"), ("SLURM_PROCID", "5"), ("SLURM_STEP_NUM_TASKS", "8"), ("PMI_RANK", "5")];
        assert_eq!(of(&step), launch(Launcher::Slurm, 5, 8));
        // The shell of `salloc`, and a batch script.
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8"), ("SLURM_JOB_ID", "7")]), None);
    }
}
