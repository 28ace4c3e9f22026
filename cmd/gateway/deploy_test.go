package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// secrets are what the files in deploy leave to the environment.
var secrets = []string{"GATEWAY_REDIS=redis://redis:6379", "GATEWAY_JWT_SECRET=" + longSecret, "GATEWAY_API_KEY=" + longSecret}

func TestDeployedConfigurationsAreValid(t *testing.T) {
	for _, file := range []string{"../../deploy/compose/gateway.yaml"} {
		if _, err := loadValid(append(secrets, "GATEWAY_CONFIG="+file), nil); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestDeployedNodesHaveTimeToDrain: what stops nodes waits for the drain's default, and
// five seconds.
func TestDeployedNodesHaveTimeToDrain(t *testing.T) {
	seconds := int((defaultConfig(false).DrainTimeout + 5*time.Second).Seconds())
	for file, want := range map[string]string{
		"../../deploy/compose/compose.yaml":    fmt.Sprintf("stop_grace_period: %ds\n", seconds),
		"../../deploy/systemd/gateway.service": fmt.Sprintf("TimeoutStopSec=%d\n", seconds),
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), want) {
			t.Errorf("%s has no %q", file, want)
		}
	}
}
