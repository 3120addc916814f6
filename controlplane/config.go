package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/reevehq/reeve/pki/spiffe"
)

// Config is everything that can be set, in a YAML file or by flags of the same
// name; flags win. Unknown keys are refused.
type Config struct {
	// Data is the folder of database, keys and operator socket.
	Data string `yaml:"data"`
	// Dev makes a root document on the spot, keeps its key in the data folder and
	// lets one operator make and approve a plan. It says so at every start.
	Dev bool `yaml:"dev"`
	// Solo lets the maker of a plan approve it without Dev; plans say so.
	Solo bool `yaml:"solo"`
	// TrustDomain of every SPIFFE ID.
	TrustDomain string `yaml:"trust_domain"`
	// Listen is where agents dial, host:port.
	Listen string `yaml:"listen"`
	// Advertise is the address agents are told; Listen when empty.
	Advertise string `yaml:"advertise"`
	// OperatorListen serves the operator API, gRPC and REST, over mTLS; empty for
	// the local socket alone.
	OperatorListen string `yaml:"operator_listen"`
	// Socket of the operator API; <data>/operator.sock when empty.
	Socket string `yaml:"socket"`
	// SVIDSource is "builtin" or "workload-api".
	SVIDSource string `yaml:"svid_source"`
	// WorkloadAPI is the address of the SPIFFE Workload API, as
	// unix:///run/spire/agent.sock.
	WorkloadAPI string `yaml:"workload_api"`
	// Heartbeat asked of agents.
	Heartbeat time.Duration `yaml:"heartbeat"`
	// MSP is the id, owner and zone of the MSP's own tenant.
	MSP MSP `yaml:"msp"`
	// LogFormat is text or json; LogLevel debug, info, warn or error.
	LogFormat string `yaml:"log_format"`
	LogLevel  string `yaml:"log_level"`
}

// MSP describes the MSP's own tenant, made at the first start.
type MSP struct {
	ID    string `yaml:"id"`
	Owner string `yaml:"owner"`
	Zone  string `yaml:"zone"`
}

// Default returns what holds where nothing is set.
func Default() Config {
	return Config{
		Data: "reeve-data", TrustDomain: "reeve.local", Listen: "127.0.0.1:7443", SVIDSource: "builtin", Heartbeat: 15 * time.Second,
		MSP: MSP{ID: "msp", Owner: "noc@msp.example", Zone: "UTC"}, LogFormat: "text", LogLevel: "info",
	}
}

// ErrConfig is wrapped by every error about settings.
var ErrConfig = errors.New("configuration refused")

// ReadFile reads a YAML file over c.
func (c *Config) ReadFile(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s: %w", ErrConfig, path, err)
	}
	return nil
}

// Validate says what is wrong and what to write in its place.
func (c *Config) Validate() error {
	switch {
	case c.Data == "":
		return fmt.Errorf("%w: data is empty; name a folder", ErrConfig)
	case c.Listen == "":
		return fmt.Errorf("%w: listen is empty; name host:port for agents to dial", ErrConfig)
	case c.SVIDSource != "builtin" && c.SVIDSource != "workload-api":
		return fmt.Errorf("%w: svid_source is %q; say builtin or workload-api", ErrConfig, c.SVIDSource)
	case c.SVIDSource == "workload-api" && c.WorkloadAPI == "":
		return fmt.Errorf("%w: workload_api is empty; name its socket, as unix:///run/spire/agent.sock", ErrConfig)
	case c.LogFormat != "text" && c.LogFormat != "json":
		return fmt.Errorf("%w: log_format is %q; say text or json", ErrConfig, c.LogFormat)
	}
	if err := spiffe.ValidateTrustDomain(c.TrustDomain); err != nil {
		return fmt.Errorf("%w: trust_domain: %w", ErrConfig, err)
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(c.Data, "operator.sock")
	}
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	return nil
}
