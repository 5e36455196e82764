//! The sequence: from a plan to a provisioned volume.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use cli::{interrupt, narrate};
use manifest::{Isolation, LeftOverProcess, ProvisionedStep};
use provider::{Images, VolumeRecord, VolumeSpec};

use crate::chroot::Chroot;
use crate::device::Device;
use crate::plan::{Plan, Step};
use crate::session::Session;

/// Provisions the volumes of several builders side by side, at most `at_once` of them.
///
/// A build spends its time in child processes that it waits for, so each has a thread of its own. One
/// that fails does not keep the others from their volumes.
pub(crate) fn bake_all(plans: &[(impl Images + Sync, Plan)], scratch: &Path, at_once: usize) -> Vec<Result<Baked>> {
    let bake_one = |number: usize| -> Option<Result<Baked>> {
        let (provider, plan) = plans.get(number)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Some(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(bake(provider, plan, scratch))))
    };
    let next = AtomicUsize::new(0);
    let work = || {
        let mut baked = Vec::new();
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && let Some(one) = bake_one(number)
        {
            baked.push((number, one));
        }
        baked
    };
    let mut baked: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.min(plans.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    baked.sort_by_key(|(number, _)| *number);
    let mut baked = baked.into_iter().peekable();
    // A thread that ended early has lost what it made.
    let lost = || Err(anyhow!("the thread of a builder ended early"));
    (0..plans.len()).map(|number| baked.next_if(|(n, _)| *n == number).map_or_else(lost, |(_, baked)| baked)).collect()
}

/// A volume that holds what the plan asked for, and how it came to.
pub(crate) struct Baked {
    pub(crate) volume: VolumeRecord,
    pub(crate) steps: Vec<ProvisionedStep>,
    /// Whether it was there already.
    pub(crate) reused: bool,
}

/// Provisions a volume, or finds the one that holds the same already.
///
/// Each pass of the loop starts from the longest prefix of layers that is known. It
/// ends early when another run has made the next layer in the meantime.
async fn bake(provider: &impl Images, plan: &Plan, scratch: &Path) -> Result<Baked> {
    let mut steps: Vec<ProvisionedStep> = Vec::new();
    loop {
        let _lock = provider.lock_layer(plan.key()).await?;
        if plan.is_cacheable()
            && let Some(volume) = provider.find_volume(plan.key(), plan.max_age).await?
        {
            let cached = |step: &Step| cached(step);
            return Ok(Baked { volume, steps: plan.steps.iter().map(cached).collect(), reused: true });
        }
        let known = known_prefix(provider, plan).await?;
        steps.truncate(known);
        steps.extend(plan.steps[steps.len()..known].iter().map(cached));
        for step in &steps {
            say(plan, &format!("{}: cached", step.kind));
        }

        say(plan, "Creating the root volume...");
        let volume = provider.create_volume(&volume_spec(plan, known)).await?;
        match provision(provider, plan, &volume, scratch, &mut steps).await {
            Ok(Progress::Complete) => {
                let volume = provider.complete_volume(&volume, plan.key()).await?;
                return Ok(Baked { volume, steps, reused: false });
            }
            Ok(Progress::LayerAppeared) => provider.delete_volume(&volume.id).await?,
            Err(error) => {
                if plan.failure.keeps_volume() {
                    let left = provider.leave_volume(&volume).await;
                    narrate::note(&left.unwrap_or_else(|error| format!("{error:#}")));
                } else {
                    provider.delete_volume(&volume.id).await?;
                }
                return Err(error.context(format!("builder '{}'", plan.builder)));
            }
        }
    }
}

enum Progress {
    Complete,
    /// Another run made the layer that would have come next.
    LayerAppeared,
}

/// The talk's sequence, on a volume that holds the first `steps.len()` layers.
async fn provision(
    provider: &impl Images,
    plan: &Plan,
    volume: &VolumeRecord,
    scratch: &Path,
    steps: &mut Vec<ProvisionedStep>,
) -> Result<Progress> {
    say(plan, "Attaching the root volume...");
    let attachment = provider.attach(volume, plan.options.amazon.device.as_deref()).await?;
    let session = Session::start()?;
    let device = Device::name(&attachment.device, scratch)?;
    let build = Build { plan, session: &session, device: &device, packages: &provider.cache().join("apt"), scratch };
    if steps.is_empty() {
        build.prepare()?;
    }
    let todo = &plan.steps[steps.len()..];
    for (number, step) in todo.iter().enumerate() {
        // The last layer's lock is the caller's already.
        let last = number + 1 == todo.len();
        let _lock = if last { None } else { Some(provider.lock_layer(&step.key).await?) };
        if step.layer && provider.has_layer(&step.key, plan.max_age).await? {
            drop(session);
            provider.detach(attachment).await?;
            return Ok(Progress::LayerAppeared);
        }
        let chroot = build.enter()?;
        steps.push(run(plan, step, &chroot)?);
        say(plan, "Cleaning up and unmounting the root device...");
        chroot.clean_up()?;
        if step.layer {
            provider.cut_layer(volume, &step.key, &format!("{}: {}", plan.builder, step.kind)).await?;
        }
    }
    drop(session);
    say(plan, "Detaching the root volume...");
    provider.detach(attachment).await?;
    Ok(Progress::Complete)
}

/// What a volume is provisioned with.
struct Build<'a> {
    plan: &'a Plan,
    session: &'a Session,
    device: &'a Device,
    /// Where packages of all builds are.
    packages: &'a Path,
    scratch: &'a Path,
}

impl<'a> Build<'a> {
    /// Runs the commands that make something of a new volume. Their result is in the first layer, so they are not
    /// run again for a build that starts from one.
    fn prepare(&self) -> Result<()> {
        let options = &self.plan.options;
        let path = self.mount_path()?;
        if options.pre_mount_commands.is_empty() && options.post_mount_commands.is_empty() {
            return Ok(());
        }
        self.device.read_partitions(self.session)?;
        for command in &options.pre_mount_commands {
            self.shell(command, &path)?;
            self.device.read_partitions(self.session)?;
        }
        let chroot = Chroot::mount_root(self.session, self.device, &path, self.plan)?;
        for command in &options.post_mount_commands {
            self.shell(command, &path)?;
        }
        let mounted = chroot.mounted_below()?;
        ensure!(
            mounted.is_empty(),
            "post_mount_commands mounted {}, which only the first provisioner would see: name it in chroot_mounts",
            mounted.join(" and ")
        );
        chroot.clean_up()
    }

    /// Mounts the volume and puts in what is there for the build only.
    fn enter(&self) -> Result<Chroot<'a>> {
        let Self { plan, session, device, packages, scratch } = *self;
        let options = &plan.options;
        say(plan, "Mounting the root device...");
        let mut chroot = Chroot::mount_root(session, device, &self.mount_path()?, plan)?;
        say(plan, "Mounting additional paths within the chroot...");
        let booted = plan.isolation == Isolation::Boot;
        chroot.mount_extra(options.chroot_mounts.iter().filter(|mount| !(booted && mount.is_kernels())))?;
        chroot.share_packages(packages, scratch)?;
        say(plan, "Copying files from host to chroot...");
        chroot.copy_files(options.copy_files.iter().filter(|file| !(booted && *file == "/etc/resolv.conf")))?;
        match plan.isolation {
            Isolation::Chroot => chroot.forbid_services()?,
            Isolation::Boot => {
                say(plan, "Booting the volume's own system...");
                chroot.boot(scratch)?;
            }
        }
        Ok(chroot)
    }

    fn mount_path(&self) -> Result<PathBuf> {
        match &self.plan.options.mount_path {
            // Packer's field there is the name without the directory.
            Some(path) => {
                Ok(fields(path, self.device.path().file_name().unwrap_or_default().as_ref(), Path::new(""))?.into())
            }
            None => Ok(self.scratch.join("root").join(&self.plan.builder)),
        }
    }

    /// Runs a line of the template's on the host, where the volume's device and mounts are seen.
    fn shell(&self, line: &str, mount_path: &Path) -> Result<()> {
        let line = fields(line, self.device.path(), mount_path)?;
        // As with Packer, relative paths start where imager was started.
        let here = std::env::current_dir().context("finding the working directory")?;
        let run = self.session.enter(&[&format!("--wdns={}", here.display())]);
        let run = match &self.plan.options.command_wrapper {
            Some(wrapper) => run.args(["/bin/sh", "-c", wrapper, "sh"]),
            None => run,
        };
        let run = run.args(["/bin/sh", "-c", &line]);
        let run = run.labelled(&self.plan.builder).narrated();
        self.plan.secrets.iter().fold(run, cli::Command::secret).run()?;
        Ok(())
    }
}

fn run(plan: &Plan, step: &Step, chroot: &Chroot) -> Result<ProvisionedStep> {
    if let Some(why) = &step.why {
        narrate::detail(&format!("{}: {} runs: {why}", plan.builder, step.kind));
    }
    say(plan, &format!("Provisioning with {}...", step.kind));
    let started = Instant::now();
    let ran = step.attempts.run(chroot, &plan.failure, || step.provisioner.run(chroot, &step.stage));
    interrupt::check()?;
    // Looked for even if it failed: the volume has to be unmounted either way.
    let left_over = chroot.end_left_over()?;
    ran.with_context(|| format!("provisioner {}", step.kind))?;
    let left_over: Vec<_> = left_over
        .into_iter()
        .map(|process| LeftOverProcess { name: process.name, command_line: chroot.redact(process.command_line) })
        .collect();
    for process in &left_over {
        let (builder, kind) = (&plan.builder, &step.kind);
        narrate::note(&format!("{builder}: {kind} left a process running, which was ended: {}", process.command_line));
    }
    let took = started.elapsed();
    say(plan, &format!("{}: {:.1} s", step.kind, took.as_secs_f64()));
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Ok(ProvisionedStep { kind: step.kind.clone(), layer: step.key.clone(), cached: false, millis, left_over })
}

/// How many of the plan's first steps need not run.
///
/// The last step's result is a volume, never a layer.
async fn known_prefix(provider: &impl Images, plan: &Plan) -> Result<usize> {
    let cacheable = plan.steps.iter().take_while(|step| step.cache).count();
    for known in (1..=cacheable).rev().filter(|known| plan.steps[known - 1].layer) {
        if provider.has_layer(&plan.steps[known - 1].key, plan.max_age).await? {
            return Ok(known);
        }
    }
    Ok(0)
}

fn volume_spec(plan: &Plan, known: usize) -> VolumeSpec {
    VolumeSpec {
        source: plan.source.clone(),
        layer: known.checked_sub(1).map(|last| plan.steps[last].key.clone()),
        virtualization_type: plan.virtualization_type.clone(),
        root_partition: plan.root_partition_given(),
        size: plan.options.size,
        medium: plan.options.amazon.medium.clone(),
        tags: plan.origin.clone().into_iter().chain(plan.options.amazon.volume_tags.clone()).collect(),
    }
}

fn cached(step: &Step) -> ProvisionedStep {
    ProvisionedStep { kind: step.kind.clone(), layer: step.key.clone(), cached: true, millis: 0, left_over: Vec::new() }
}

/// Fills in what is known only now.
fn fields(text: &str, device: &Path, mount_path: &Path) -> Result<String> {
    crate::template::fields(text, &[("Device", device), ("MountPath", mount_path)])
}

/// A step of the sequence, with the builder's name before it as Packer shows it.
fn say(plan: &Plan, text: &str) {
    narrate::step(&format!("{}: {text}", plan.builder));
}
