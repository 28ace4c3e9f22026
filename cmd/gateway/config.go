package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	"wssgateway/gateway"
)

// config is everything an operator can set on the process: the gateway's own
// settings and those that only a process has. Like them, each is declared once,
// here; `nofile` marks what makes no sense in the file.
type config struct {
	File      string `config:"config,nofile" help:"YAML file to read settings from"`
	Redis     string `config:"redis" help:"Redis: redis://, rediss://, unix://, redis+sentinel://host:26379,host2:26379/master or redis+cluster://host:port,host2:port (required without --dev)"`
	LogLevel  string `config:"log_level" help:"least level that is logged: debug, info, warn or error"`
	LogFormat string `config:"log_format" help:"text or json"`

	gateway.Config

	Tracing tracingConfig `config:"tracing"`

	// origins says where a setting was set, in the operator's own words; what
	// is not in it has its default. Written by the loader only.
	origins origins
}

// defaultConfig is where loading starts from. Development mode is a change of
// defaults and nothing else: whatever is set explicitly still wins.
func defaultConfig(dev bool) config {
	c := config{
		LogLevel:  "info",
		LogFormat: "text",
		Config:    gateway.DefaultConfig(),
		Tracing:   tracingConfig{Sample: 0.01},
	}
	// Without a host name node_name stays empty, and validation asks for it.
	c.NodeName, _ = os.Hostname()
	if dev {
		developmentDefaults(&c)
	}
	return c
}

// validateAll returns every mistake in c, joined, each by the path of its setting.
func (c *config) validateAll() error {
	errs := []error{c.Validate()}
	if _, ok := logLevels[c.LogLevel]; !ok {
		errs = append(errs, fmt.Errorf("log_level: %s is not debug, info, warn or error", quote(c.LogLevel)))
	}
	if !slices.Contains(logFormats, c.LogFormat) {
		errs = append(errs, fmt.Errorf("log_format: %s is not text or json", quote(c.LogFormat)))
	}
	errs = append(errs, c.validateRedis(), c.validateDevelopment(), c.Tracing.validate())
	return errors.Join(errs...)
}

func (c *config) validateRedis() error {
	if c.Redis == "" && c.Dev {
		return nil
	}
	if c.Redis == "" {
		return errors.New("redis: is required, for example redis://127.0.0.1:6379")
	}
	if _, err := parseRedis(c.Redis); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

// validateDevelopment keeps development and production apart: what everybody
// knows must not be reachable from elsewhere, nor guard what is.
func (c *config) validateDevelopment() error {
	if !c.Dev {
		return c.refuseDevelopmentSecret()
	}
	var errs []error
	for _, listen := range []struct{ path, addr string }{
		{"listen", c.Listen}, {"admin_listen", c.AdminListen},
	} {
		if !gateway.IsLoopback(listen.addr) {
			errs = append(errs, fmt.Errorf("%s: %s is not a loopback address, and --dev serves no other",
				listen.path, quote(listen.addr)))
		}
	}
	return errors.Join(errs...)
}

func (c *config) refuseDevelopmentSecret() error {
	if c.JWTSecret == developmentSecret {
		return errors.New("jwt_secret: is the development secret, which everybody knows; choose your own")
	}
	return nil
}

var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug,
	"info":  slog.LevelInfo,
	"warn":  slog.LevelWarn,
	"error": slog.LevelError,
}

var logFormats = []string{"text", "json"}
