package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"wssgateway/examples/lab"
)

// proxy is one of the proxies in deploy, with a folder of its own.
type proxy struct {
	name   string
	config string // in deploy
	check  []string
	run    []string // arguments, after the program; FILE is the configuration
	signal syscall.Signal
	// places are what the configuration has, and this machine has elsewhere.
	places func(p *proxy, nodes []*lab.Node) map[string]string

	version string
	dir     string
	address string
	cmd     *exec.Cmd
}

func proxies() []*proxy {
	return []*proxy{{
		name: "nginx", config: "deploy/nginx/nginx.conf", signal: syscall.SIGHUP,
		check: []string{"-t", "-q", "-c", "FILE"}, run: []string{"-c", "FILE", "-g", "daemon off;"},
		places: func(p *proxy, nodes []*lab.Node) map[string]string {
			return map[string]string{
				"server gateway-1:8080": "server " + nodes[0].Public, "server gateway-2:8080": "server " + nodes[1].Public,
				"listen 8443": "listen " + p.address, "/etc/nginx/tls/": p.dir + "/", "/tmp/nginx": p.dir + "/nginx",
			}
		},
	}, {
		name: "haproxy", config: "deploy/haproxy/haproxy.cfg", signal: syscall.SIGUSR2,
		check: []string{"-c", "-q", "-f", "FILE"}, run: []string{"-W", "-f", "FILE"},
		places: func(p *proxy, nodes []*lab.Node) map[string]string {
			return map[string]string{
				"server gateway-1 gateway-1:8080": "server gateway-1 " + nodes[0].Public,
				"server gateway-2 gateway-2:8080": "server gateway-2 " + nodes[1].Public,
				"bind :8443":                      "bind " + p.address, "/etc/haproxy/tls/": p.dir + "/",
			}
		},
	}}
}

func (p *proxy) file(name string) string { return filepath.Join(p.dir, name) }

// prepare writes a certificate and the configuration, which differs from the one in
// deploy in nothing but places.
func (p *proxy) prepare(ctx context.Context, nodes []*lab.Node) (err error) {
	if _, err := exec.LookPath(p.name); err != nil {
		return fmt.Errorf("%w (make proxies installs it)", err)
	}
	version, err := exec.CommandContext(ctx, p.name, "-v").CombinedOutput()
	if err != nil {
		return err
	}
	p.version, _, _ = strings.Cut(string(version), "\n")
	if p.dir, err = os.MkdirTemp("", "proxy"); err != nil {
		return err
	}
	// Workers that are not root write here.
	if err := os.Chmod(p.dir, 0o755); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.address = ln.Addr().String()
	if err := errors.Join(ln.Close(), p.certify()); err != nil {
		return err
	}
	b, err := os.ReadFile(p.config)
	if err != nil {
		return err
	}
	config := string(b)
	for from, to := range p.places(p, nodes) {
		if !strings.Contains(config, from) {
			return fmt.Errorf("%s has no %q", p.config, from)
		}
		config = strings.ReplaceAll(config, from, to)
	}
	if err := os.WriteFile(p.file("config"), []byte(config), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, p.name, p.args(p.check)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", p.config, err, out)
	}
	return nil
}

// certify makes a certificate for this machine.
func (p *proxy) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	return errors.Join(os.WriteFile(p.file("tls.crt"), crt, 0o644), os.WriteFile(p.file("tls.key"), private, 0o600),
		os.WriteFile(p.file("tls.pem"), append(crt, private...), 0o600))
}

func (p *proxy) args(args []string) []string {
	var all []string
	for _, a := range args {
		all = append(all, strings.ReplaceAll(a, "FILE", p.file("config")))
	}
	return all
}

// start starts the proxy and waits until it serves.
func (p *proxy) start(ctx context.Context) error {
	log, err := os.OpenFile(p.file("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(p.name, p.args(p.run)...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	return p.await(ctx)
}

// await waits until the proxy speaks TLS.
func (p *proxy) await(ctx context.Context) error {
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // asks only whether anybody is there
	for {
		conn, err := dialer.DialContext(ctx, "tcp", p.address)
		if err == nil {
			return conn.Close()
		}
		if lab.Pause(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%s does not serve: %w", p.name, err)
		}
	}
}

// reload has the proxy read its configuration again, and waits a moment: old and
// new process are then side by side.
func (p *proxy) reload(ctx context.Context) error {
	if err := p.cmd.Process.Signal(p.signal); err != nil {
		return err
	}
	return errors.Join(lab.Pause(ctx, 2*time.Second), p.await(ctx))
}

// kill ends the proxy, with all its processes.
func (p *proxy) kill() error {
	if p.cmd == nil || p.cmd.ProcessState != nil {
		return nil
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		return err
	}
	_ = p.cmd.Wait() // says "killed"
	return nil
}

// close ends the proxy and removes what it left. If it did not go well, what it said
// is shown.
func (p *proxy) close(failed bool) error {
	err := p.kill()
	if failed {
		b, readErr := os.ReadFile(p.file("log"))
		fmt.Fprintf(os.Stderr, "%s\n", b[max(0, len(b)-5000):])
		err = errors.Join(err, readErr)
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}
