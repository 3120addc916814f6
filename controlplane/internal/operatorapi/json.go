package operatorapi

import (
	"io"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// restJSON is the gateway's own JSON, with names that act on whoever looks at them
// made harmless.
func restJSON() runtime.Marshaler {
	return &runtime.HTTPBodyMarshaler{Marshaler: visibleJSON{&runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{EmitUnpopulated: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
	}}}
}

// visibleJSON is a marshaler whose documents can be shown as they are.
type visibleJSON struct{ runtime.Marshaler }

// Marshal implements runtime.Marshaler.
func (m visibleJSON) Marshal(v any) ([]byte, error) {
	doc, err := m.Marshaler.Marshal(v)
	if err != nil {
		return nil, err
	}
	return operatorv1.VisibleJSON(doc), nil
}

// NewEncoder implements runtime.Marshaler.
func (m visibleJSON) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		doc, err := m.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(append(doc, '\n'))
		return err
	})
}
