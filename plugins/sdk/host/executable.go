package host

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"os"

	"github.com/reevehq/reeve/plugins/sdk"
)

// executable is an opened program: what was hashed is what is executed.
type executable struct {
	file   *os.File
	path   string
	digest []byte
}

func openExecutable(path string, want []byte) (*executable, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	var head [2]byte
	n, _ := io.ReadFull(file, head[:])
	h.Write(head[:n])
	if _, err := io.Copy(h, file); err != nil {
		_ = file.Close()
		return nil, err
	}
	e := &executable{file: file, digest: h.Sum(nil), path: handlePath(file, path)}
	script := bytes.Equal(head[:n], []byte("#!"))
	switch {
	case len(want) > 0 && subtle.ConstantTimeCompare(want, e.digest) != 1:
		_ = file.Close()
		return nil, sdk.NewProblem(sdk.CodeBinaryChanged, path, "start the connector",
			"if you replaced the connector on purpose, write its new sha256 into agent.yaml").
			WithSaid(fmt.Sprintf("sha256 is %x, agent.yaml says %x", e.digest, want))
	case script && len(want) > 0:
		_ = file.Close()
		return nil, sdk.NewProblem(sdk.CodeConfig, path, "start the connector",
			"give the interpreter as the command with its sha256, and the script as its first argument").
			WithSaid("a script cannot be executed from the handle that was hashed")
	case script:
		e.path = path
	}
	return e, nil
}

func (e *executable) Close() error { return e.file.Close() }
