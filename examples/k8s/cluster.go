package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// cluster is a Kubernetes of two machines, with Traefik as the Ingress (Service
// traefik in the namespace traefik) and a metrics-server.
type cluster interface {
	up(ctx context.Context) error
	// load brings an image of the local docker to all machines.
	load(ctx context.Context, image string) error
	// redis returns the image of Redis, which is on the machines.
	redis(ctx context.Context) (string, error)
	// signal sends a signal to the gateways on a machine.
	signal(ctx context.Context, machine, name string) error
	// kill has a machine vanish, as a power cut does.
	kill(ctx context.Context, machine string) error
	down(ctx context.Context) error
	// stable is the machine that carries what must live on, fragile the one that
	// is emptied and killed.
	stable() string
	fragile() string
	// needs are the programs that must be there, besides docker.
	needs() []string
}

// chooseCluster returns the lab in the folder K8S_LAB, or else one of kind.
func chooseCluster() (cluster, error) {
	dir := os.Getenv("K8S_LAB")
	if dir == "" {
		return kind{}, nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	work := os.Getenv("LAB")
	if work == "" {
		work = filepath.Join(cache, "k8s-lab")
	}
	l := lab{dir, work}
	return l, errors.Join(
		os.Setenv("LAB", work), os.Setenv("NODES", "2"),
		os.Setenv("PATH", filepath.Join(work, "bin")+":"+os.Getenv("PATH")),
		os.Setenv("KUBECONFIG", filepath.Join(work, "run", "admin.conf")),
		os.Setenv("DOCKER", "/usr/bin/docker"), os.Setenv("DOCKER_HOST", "unix://"+filepath.Join(work, "docker", "docker.sock")),
		os.Setenv("BUILD_FLAGS", "--network host"))
}

// kind is a cluster of https://kind.sigs.k8s.io, in docker.
type kind struct{}

const kindName = "gateway-e2e"

const kindConfig = `
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}, {role: worker}, {role: worker}]
`

const kindRedis = "docker.io/library/redis:8.2-alpine"

func (kind) needs() []string { return []string{"kind", "kubectl", "helm"} }
func (kind) stable() string  { return kindName + "-worker" }
func (kind) fragile() string { return kindName + "-worker2" }

func (k kind) up(ctx context.Context) error {
	if err := command(ctx, "kind", "create", "cluster", "--name", kindName, "--wait", "120s", "--config", "-").feed(kindConfig).run(); err != nil {
		return err
	}
	onStable := "kubernetes\\.io/hostname=" + k.stable()
	return errors.Join(
		command(ctx, "helm", "install", "traefik", "traefik", "--repo", "https://traefik.github.io/charts",
			"--namespace", "traefik", "--create-namespace", "--wait", "--set", "service.type=ClusterIP", "--set", "nodeSelector."+onStable).run(),
		command(ctx, "helm", "install", "metrics-server", "metrics-server", "--repo", "https://kubernetes-sigs.github.io/metrics-server",
			"--namespace", "kube-system", "--wait", "--set", "args={--kubelet-insecure-tls,--metric-resolution=10s}", "--set", "nodeSelector."+onStable).run())
}

func (kind) load(ctx context.Context, image string) error {
	return command(ctx, "kind", "load", "docker-image", "--name", kindName, image).run()
}

func (k kind) redis(ctx context.Context) (string, error) {
	if err := command(ctx, docker(), "pull", kindRedis).run(); err != nil {
		return "", err
	}
	return kindRedis, k.load(ctx, kindRedis)
}

func (kind) signal(ctx context.Context, machine, name string) error {
	return command(ctx, docker(), "exec", machine, "pkill", "-"+name, "-x", "gateway").run()
}

func (kind) kill(ctx context.Context, machine string) error {
	return command(ctx, docker(), "kill", machine).run()
}

func (kind) down(ctx context.Context) error {
	return command(ctx, "kind", "delete", "cluster", "--name", kindName).run()
}

// lab is a cluster made by the scripts in a folder, for machines on which docker
// can pull nothing: lab.sh up, addons, in-node, kill-node, down; docker.sh up, base.
type lab struct{ dir, work string }

const labRedis = "registry.local/redis:e2e"

func (lab) needs() []string { return []string{"kubectl", "helm", "mkimage", "redis-server"} }
func (lab) stable() string  { return "node1" }
func (lab) fragile() string { return "node2" }

func (l lab) script(ctx context.Context, args ...string) *cmd {
	return command(ctx, filepath.Join(l.dir, "lab.sh"), args...)
}

func (l lab) up(ctx context.Context) error {
	for _, step := range []*cmd{
		command(ctx, filepath.Join(l.dir, "docker.sh"), "up"), command(ctx, filepath.Join(l.dir, "docker.sh"), "base"),
		l.script(ctx, "up"), l.script(ctx, "addons"),
	} {
		if err := step.run(); err != nil {
			return err
		}
	}
	return nil
}

func (l lab) importTar(ctx context.Context, tar string) error {
	for _, machine := range []string{"1", "2"} {
		if err := l.script(ctx, "in-node", machine, "/usr/bin/ctr", "-n", "k8s.io", "images", "import", tar).run(); err != nil {
			return err
		}
	}
	return nil
}

func (l lab) load(ctx context.Context, image string) error {
	tar := filepath.Join(l.work, "e2e.tar")
	defer os.Remove(tar)
	if err := command(ctx, docker(), "save", image, "-o", tar).run(); err != nil {
		return err
	}
	return l.importTar(ctx, tar)
}

// redis makes an image of this machine's redis-server and the libraries it needs.
func (l lab) redis(ctx context.Context) (string, error) {
	server, err := command(ctx, "sh", "-c", "readlink -f $(command -v redis-server)").output()
	if err != nil {
		return "", err
	}
	server = strings.TrimSpace(server)
	linked, err := command(ctx, "ldd", server).output()
	if err != nil {
		return "", err
	}
	tar := filepath.Join(l.work, "redis.tar")
	defer os.Remove(tar)
	args := []string{labRedis, tar, server + ":/redis-server"}
	for field := range strings.FieldsSeq(linked) {
		if !strings.HasPrefix(field, "/") {
			continue
		}
		file, err := filepath.EvalSymlinks(field)
		if err != nil {
			return "", err
		}
		args = append(args, file+":"+field)
	}
	if err := command(ctx, "mkimage", append(args, "--", "/redis-server")...).run(); err != nil {
		return "", err
	}
	return labRedis, l.importTar(ctx, tar)
}

func (l lab) signal(ctx context.Context, machine, name string) error {
	return l.script(ctx, "in-node", strings.TrimPrefix(machine, "node"), "pkill", "-"+name, "-x", "gateway").run()
}

func (l lab) kill(ctx context.Context, machine string) error {
	return l.script(ctx, "kill-node", strings.TrimPrefix(machine, "node")).run()
}

func (l lab) down(ctx context.Context) error {
	return errors.Join(l.script(ctx, "down").run(), command(ctx, filepath.Join(l.dir, "docker.sh"), "down").run())
}

func docker() string {
	if name := os.Getenv("DOCKER"); name != "" {
		return name
	}
	return "docker"
}

// lookFor says what is missing.
func lookFor(programs []string) error {
	var missing []string
	for _, name := range programs {
		if _, err := lookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s: not found; docs/deploy.md says what is needed", strings.Join(missing, ", "))
	}
	return nil
}
