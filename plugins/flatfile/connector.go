package flatfile

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Connector is the flatfile connector.
type Connector struct{}

// Version is the connector's semantic version.
const Version = "1.0.0"

// Describe implements sdk.Connector.
func (Connector) Describe() *connectorv1.DescribeResponse {
	passwd := (&passwdFormat{}).types()
	// The formats share the names user and group: what any of them can do.
	return &connectorv1.DescribeResponse{
		Name: "flatfile", Version: Version, CaseRule: connectorv1.CaseRule_CASE_RULE_EXACT,
		Types:        append([]*connectorv1.ObjectType{personType(nil)}, passwd...),
		ConfigSchema: configSchema,
	}
}

// Open implements sdk.Connector. Files are looked at, since the types of a CSV
// instance are its header, but nothing is changed.
func (Connector) Open(_ context.Context, settings sdk.Settings) (sdk.Instance, error) {
	var which struct {
		Format string `json:"format"`
	}
	if len(settings.JSON) > 0 {
		if err := json.Unmarshal(settings.JSON, &which); err != nil {
			return nil, settings.Problem("format", "cannot be read", "correct the settings in agent.yaml").WithCause(err)
		}
	}
	edge := edge{now: time.Now, random: rand.Reader}
	switch which.Format {
	case "csv":
		return openCSV(settings)
	case "htpasswd":
		return openHtpasswd(settings, edge)
	case "passwd":
		return openPasswd(settings, edge)
	default:
		return nil, settings.Problem("format", "is missing or not known", "set it to csv, htpasswd or passwd")
	}
}

const configSchema = `{
 "$schema": "https://json-schema.org/draft/2020-12/schema",
 "title": "flatfile connector",
 "oneOf": [
  {"type": "object", "additionalProperties": false, "required": ["format", "path", "key"], "properties": {
   "format": {"const": "csv"},
   "path": {"type": "string", "description": "absolute path of the file; its first line names the columns"},
   "key": {"type": "string", "description": "the column that identifies a person and never changes"},
   "delimiter": {"type": "string", "default": ",", "minLength": 1, "maxLength": 1},
   "encoding": {"enum": ["utf-8", "latin1"], "default": "utf-8"},
   "columns": {"type": "object", "additionalProperties": {"type": "string"}, "description": "attribute name by column, where it is not the column's own"},
   "require_trailer": {"type": "string", "description": "the last line that a finished file has, exactly"}}},
  {"type": "object", "additionalProperties": false, "required": ["format", "path"], "properties": {
   "format": {"const": "htpasswd"},
   "path": {"type": "string", "description": "absolute path of an existing htpasswd file"},
   "groups": {"type": "string", "description": "absolute path of an existing AuthGroupFile"},
   "cost": {"type": "integer", "minimum": 5, "maximum": 17, "default": 10, "description": "bcrypt cost"}}},
  {"type": "object", "additionalProperties": false, "required": ["format", "root"], "properties": {
   "format": {"const": "passwd"},
   "root": {"type": "string", "description": "folder of passwd, shadow, group and, if it is there, gshadow; /etc is this host"},
   "uid_min": {"type": "integer", "minimum": 1, "default": 1000},
   "uid_max": {"type": "integer", "default": 60000},
   "gid_min": {"type": "integer", "minimum": 1, "default": 1000},
   "gid_max": {"type": "integer", "default": 60000},
   "default_gid": {"type": "integer", "default": 100, "description": "primary group of a user made without one"},
   "home_base": {"type": "string", "default": "/home"},
   "default_shell": {"type": "string", "default": "/usr/sbin/nologin"},
   "rounds": {"type": "integer", "minimum": 1000, "maximum": 999999, "default": 5000, "description": "SHA-512-crypt rounds"}}}
 ]
}`
