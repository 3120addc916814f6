package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
)

var (
	// ErrNotJoined means that the folder holds no identity yet.
	ErrNotJoined = errors.New("this agent has not joined yet; run reeve-agent join first")
	// ErrLocked means that another agent process uses the folder.
	ErrLocked = errors.New("another reeve-agent uses this state folder")
	// ErrOpen means that others than the owner may enter the folder.
	ErrOpen = errors.New("state folder is open to others")
)

// Dir is a state folder. Its methods only name places; they are safe for
// concurrent use.
type Dir struct{ path string }

// Open makes the folder with mode 0700 where it is missing and refuses one that
// group or others may enter.
func Open(path string) (Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return Dir{}, fmt.Errorf("make state folder: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return Dir{}, fmt.Errorf("state folder: %w", err)
	}
	if !info.IsDir() {
		return Dir{}, fmt.Errorf("state folder %s is not a folder", path)
	}
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		return Dir{}, fmt.Errorf("%w: %s has mode %04o; run chmod 700 on it", ErrOpen, path, perm)
	}
	return Dir{path: path}, nil
}

// At names the places in a folder without looking at it.
func At(path string) Dir { return Dir{path: path} }

// Path is the folder itself.
func (d Dir) Path() string { return d.path }

func (d Dir) at(name string) string { return filepath.Join(d.path, name) }

// Keys that Reeve's records and renewals are proven with, each in its own file.
func (d Dir) IdentityKey() string { return d.at("identity.key") }
func (d Dir) AuditKey() string    { return d.at("audit.key") }
func (d Dir) WitnessKey() string  { return d.at("witness.key") }

// SVIDKey is the key the join's CSR was made with, JoinCSR that CSR: both stay
// until the control plane has answered.
func (d Dir) SVIDKey() string { return d.at("svid.key") }
func (d Dir) JoinCSR() string { return d.at("join.csr") }

// SVID is where the renewing source keeps what it renewed to.
func (d Dir) SVID() string { return d.at("svid") }

// Journal is the journal's file.
func (d Dir) Journal() string { return d.at("journal.db") }

// Marks is the second copy of the journal's high-water marks.
func (d Dir) Marks() string { return d.at("marks.json") }

// Plans is the folder of plans that were tried here, for review.
func (d Dir) Plans() string { return d.at("plans") }

// Socket is where a running agent listens for local commands.
func (d Dir) Socket() string { return d.at("agent.sock") }

// Witness is the folder of the checkpoint that was cosigned last.
func (d Dir) Witness() string { return d.at("witness") }

// Checkpoints is the folder of the checkpoints this agent has cosigned.
func (d Dir) Checkpoints() string { return d.at("checkpoints") }

// Plugins is the folder of the connectors' sockets.
func (d Dir) Plugins() string { return d.at("plugins") }

// Identity is who the agent became at the join. It holds no secret.
type Identity struct {
	TrustDomain string `json:"trust_domain"`
	Tenant      string `json:"tenant"`
	Agent       string `json:"agent"`
	Epoch       uint64 `json:"epoch"`
	LogOrigin   string `json:"log_origin"`
	// ControlPlane and RootSHA256 are where and by which pin it joined.
	ControlPlane string `json:"control_plane"`
	RootSHA256   string `json:"root_sha256"`
}

// ID is the agent's SPIFFE ID.
func (i Identity) ID() spiffe.AgentID {
	return spiffe.AgentID{TrustDomain: i.TrustDomain, Tenant: i.Tenant, Agent: i.Agent}
}

func (d Dir) identityFile() string { return d.at("identity.json") }

// Identity reads who the agent is; ErrNotJoined before the join was answered.
func (d Dir) Identity() (Identity, error) {
	raw, err := os.ReadFile(d.identityFile())
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("%s: %w", d.path, ErrNotJoined)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read identity: %w", err)
	}
	var i Identity
	if err := json.Unmarshal(raw, &i); err != nil {
		return Identity{}, fmt.Errorf("%s is damaged: %w; join again in a new state folder", d.identityFile(), err)
	}
	if err := i.ID().Validate(); err != nil {
		return Identity{}, fmt.Errorf("%s is damaged: %w; join again in a new state folder", d.identityFile(), err)
	}
	return i, nil
}

// PutIdentity writes who the agent is, durably.
func (d Dir) PutIdentity(i Identity) error {
	raw, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	return keys.WriteFile(d.identityFile(), append(raw, '\n'), 0o600)
}
