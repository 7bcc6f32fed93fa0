import { LabIcon } from '@jupyterlab/ui-components';
import agents from '../style/agents.svg';

/** Three panes, one with a prompt. */
export const agentsIcon = new LabIcon({ name: 'orchestrator-lab:agents', svgstr: agents });
